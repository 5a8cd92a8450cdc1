"""A stream hears what it would have heard alone: whoever is heard with it, joins, leaves or fails.

Times, numbers of embeddings and ends of turns are equal; embeddings up to rounding, because a
product of more rows may be summed in another order.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.modality.speech.fronts import gap, new_listener, noise, save_qwen2_audio
from tests.modality.speech.signals import silence, voice

from proactivellm.core.unit import Unit
from proactivellm.modality.base import Heard
from proactivellm.modality.loading import load
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.speech_stream import SpeechStream
from proactivellm.modality.speech.turns import SpeechEar

TOLERANCE = 1e-5
Blocks = list[np.ndarray | None]
LISTENERS = {
    "blocks": {"hop": 320, "positions": 320},
    "look-ahead, causal": {"hop": 320, "block": 1, "lookahead": 3, "positions": 320},
    "out of positions": {"hop": 160, "unit": 16, "stack": 1, "lookahead": 1, "positions": 60},
}


def new_front_end(name: str, folder: Path) -> SpeechFrontEnd:
    if name == "qwen2-audio":
        front_end = load(save_qwen2_audio(folder)).front_end
        assert isinstance(front_end, SpeechFrontEnd)
        return front_end
    front_end = new_listener(**LISTENERS[name])
    if name == "blocks":
        front_end.gate = GateSettings(pause_s=0.3, hang_s=0.1)
    return front_end


def recordings(front_end: SpeechFrontEnd, rng: np.random.Generator) -> list[Blocks]:
    """Recordings of different lengths, in blocks of different ones."""
    cut: list[Blocks] = []
    for index in range(5):
        samples = noise(round((0.3 + 0.7 * index) * RATE), seed=index)
        if front_end.gate is not None:
            parts = [voice(0.3 + 0.2 * index), silence(0.5), voice(0.5), silence(0.1 * index)]
            samples = np.concatenate(parts)
        size = int(rng.integers(700, 9000))
        cut.append([*np.split(samples, range(size, len(samples), size)), None])
    return cut


def heard_alone(ear: SpeechEar, blocks: Sequence[np.ndarray | None]) -> list[Unit]:
    return [unit for each in stamped(ear, blocks) for unit in push(each)]


def stamped(ear: SpeechEar, blocks: Sequence[np.ndarray | None]) -> Iterator[Heard[SpeechEar]]:
    count = 0
    for block in blocks:
        count += 0 if block is None else len(block)
        yield Heard(ear, block, count / RATE)


def push(heard: Heard[SpeechEar]) -> list[Unit]:
    if heard.block is None:
        return heard.ear.finish(heard.now_s)
    return heard.ear.push(heard.block, heard.now_s)


def assert_same(units: list[Unit], expected: list[Unit]) -> None:
    assert [(unit.start_s, unit.end_s, unit.final) for unit in units] == [
        (unit.start_s, unit.end_s, unit.final) for unit in expected
    ]
    for unit, other in zip(units, expected, strict=True):
        assert (unit.features is None) == (other.features is None)
        if unit.features is not None and other.features is not None:
            assert gap(unit.features, other.features) < TOLERANCE


@pytest.mark.parametrize("name", [*LISTENERS, "qwen2-audio"])
def test_streams_that_join_and_leave(name: str, tmp_path: Path) -> None:
    front_end, rng = new_front_end(name, tmp_path), np.random.default_rng(7)
    cut = recordings(front_end, rng)
    cut[1] = cut[1][: len(cut[1]) // 2]  # it leaves without an end
    expected = [heard_alone(front_end.open(RATE), blocks) for blocks in cut]
    assert sum(map(len, expected)) > 10
    waiting = [stamped(front_end.open(RATE), blocks) for blocks in cut]
    actual: list[list[Unit]] = [[] for _ in cut]
    live, sizes = list(range(len(cut))), set()
    while live:
        chosen = [index for index in live if rng.random() < 0.7]  # the others have nothing now
        pushes = {index: each for index in chosen if (each := next(waiting[index], None))}
        live = [index for index in live if index not in chosen or index in pushes]
        sizes.add(len(pushes))
        for index, units in zip(pushes, front_end.hear(list(pushes.values())), strict=True):
            assert not isinstance(units, Exception)
            actual[index] += units
    assert len(sizes - {0}) >= 3 and max(sizes) >= 4
    for units, others in zip(actual, expected, strict=True):
        assert_same(units, others)
    for unit in actual[-1]:  # and keep nothing of the others alive
        if unit.features is not None:
            assert unit.features.untyped_storage().nbytes() <= 4 * 2 * unit.features.numel()


def test_one_forward_for_all() -> None:
    front_end, calls = new_front_end("out of positions", Path()), []
    for module in (front_end.encoder.tower.layers[0], front_end.encoder.tower.conv1):
        module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    front_end.projector.register_forward_hook(lambda *_: calls.append("projector"))
    ears = [front_end.open(RATE) for _ in range(4)]
    block = noise(round(front_end.unit_s * RATE))
    assert all(front_end.hear([Heard(ear, block, 1.0) for ear in ears]))
    assert calls == ["Conv1d", "WhisperEncoderLayer", "projector"]


def test_what_fails_alone_leaves_the_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    front_end = new_front_end("out of positions", Path())
    blocks: Blocks = [*np.split(noise(2 * RATE), 8), None]
    expected = heard_alone(front_end.open(RATE), blocks)
    good = stamped(front_end.open(RATE), blocks)
    broken = stamped(front_end.open(RATE), [np.full(4000, np.nan, np.float32)] * 9)
    refused = stamped(front_end.open(RATE), blocks[:2] + [np.zeros((2, 2, 2), np.float32)] * 7)
    layer, attempts = front_end.encoder.tower.layers[-1], []
    forward, units, errors = layer.forward, list[Unit](), list[Exception]()

    def forward_or_fail(hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        attempts.append(hidden.isnan().any())
        if attempts[-1]:
            raise MemoryError("not enough for this one")
        result: torch.Tensor = forward(hidden, *args, **kwargs)
        return result

    monkeypatch.setattr(layer, "forward", forward_or_fail)
    for heard in zip(good, broken, refused, strict=True):
        first, *others = front_end.hear(heard)
        assert not isinstance(first, Exception)
        units += first
        errors += [each for each in others if isinstance(each, Exception)]
    assert {type(error) for error in errors} == {MemoryError, ValueError}
    assert sum(map(bool, attempts)) > 1  # together, and then alone
    assert_same(units, expected)


def test_what_is_no_number_stays_where_it_is() -> None:
    front_end = new_front_end("look-ahead, causal", Path())
    blocks: Blocks = [*np.split(noise(RATE), 5), None]
    expected = heard_alone(front_end.open(RATE), blocks)
    good = stamped(front_end.open(RATE), blocks)
    broken = stamped(front_end.open(RATE), [np.full(3200, np.nan, np.float32)] * 6)
    results = [front_end.hear(pair)[0] for pair in zip(good, broken, strict=True)]
    assert_same([unit for units in results for unit in units], expected)


def test_the_law_can_fail() -> None:
    """What it costs to see what another stream has heard: far more than the tolerance."""
    front_end = new_front_end("look-ahead, causal", Path())
    blocks = [noise(RATE), noise(RATE, seed=1)]
    streams = [SpeechStream(front_end) for _ in blocks]
    for stream, block in zip(streams, blocks, strict=True):
        stream.push(block)
    expected = streams[0].clone().push(blocks[0])
    first, second = (stream._encoder for stream in streams)
    first._memories, second._memories = second._memories, first._memories
    for unit, other in zip(streams[0].push(blocks[0]), expected, strict=True):
        assert unit.features is not None and other.features is not None
        assert gap(unit.features, other.features) > 1e-2
