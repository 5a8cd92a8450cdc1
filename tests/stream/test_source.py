"""One source's life: whatever is pushed, and however, it is read, written, ended and released."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from tests.modality.speech.signals import silence, voice
from tests.models import save_tiny
from tests.speech_models import save_tiny_listener

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.policy.base import Policy
from proactivellm.policy.spec import parse_policy
from proactivellm.session.limits import EngineFull, Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import (
    ArrivalClock,
    Hearing,
    Stream,
    StreamEvent,
    Streams,
    stream_text,
    stream_units,
)

SOURCE = "the dog sleeps on a sofa"
RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingCausalLM:
    model = load(save_tiny("qwen3", tmp_path_factory.mktemp("tiny")))
    model.model.generation_config.max_new_tokens = 16  # a random model ends no target by itself
    return model


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> StreamingCausalLM:
    folder = tmp_path_factory.mktemp("listener") / "model"
    return load(save_tiny_listener(folder, GateSettings(pause_s=0.4), max_new_tokens=12))


@pytest.fixture
def streams(model: StreamingCausalLM) -> Streams:
    return Streams(model, parse_policy("wait-k:2"), Limits(streams=3), Sampling())


def text_of(stream: Stream) -> str:
    return "".join(event.text for event in stream.events() if event.kind == "WRITE")


def alone(model: StreamingCausalLM, source: str, policy: str | Policy = "wait-k:2") -> str:
    policy = parse_policy(policy) if isinstance(policy, str) else policy
    events = stream_text(model, policy, source, sampling=Sampling())
    return "".join(event.text for event in events if event.kind == "WRITE")


@pytest.mark.parametrize("pieces", [[SOURCE], list(SOURCE), ["the d", "og sleeps on", " a sofa"]])
def test_text_comes_in_any_pieces(
    model: StreamingCausalLM, streams: Streams, pieces: Sequence[str]
) -> None:
    stream, text = streams.open(), ""
    for piece in pieces:
        stream.push(piece)
        text += text_of(stream)
    stream.close()
    stream.close()
    events = list(stream.events())
    text += "".join(event.text for event in events if event.kind == "WRITE")
    assert text == alone(model, SOURCE) != "" and events[-1].kind == "END"
    assert stream.ended and stream.instance().prediction == text
    assert stream.instance().source == SOURCE
    with pytest.raises(ValueError, match="the source is closed"):
        stream.push("more")


@pytest.mark.parametrize(
    "pieces", [["我昨天用GPT。 好"], list("我昨天用GPT。 好"), ["我昨", "天用G", "PT。", " 好"]]
)
def test_a_source_without_spaces_is_read_character_by_character(
    model: StreamingCausalLM, pieces: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model seldom begins a word.
    settings = model.settings.model_copy(update={"boundary": "token"})
    monkeypatch.setattr(model, "settings", settings)
    streams = Streams(model, parse_policy("wait-k:2"), Limits(streams=3), Sampling())
    stream, events = streams.open(), list[StreamEvent]()
    for piece in pieces:
        stream.push(piece)
        events += stream.events()
    stream.close()
    events += stream.events()
    reads = [event.text for event in events if event.kind == "READ"]
    assert reads == ["我", "昨", "天", "用", "GPT", "。", "好"]
    text = "".join(event.text for event in events if event.kind == "WRITE")
    assert text == alone(model, "我昨天用GPT。 好") != ""
    instance = stream.instance()
    assert (instance.source, instance.source_length) == ("我昨天用GPT。 好", 7)
    assert instance.token_delays[:7] == [2, 3, 4, 5, 6, 7, 7]


def test_turns_follow_each_other_in_fresh_lanes(model: StreamingCausalLM, streams: Streams) -> None:
    turns = [streams.segmenter.segment(SOURCE), streams.segmenter.segment("a sofa")]
    stream = streams.open()
    stream.push([unit for turn in turns for unit in turn])
    stream.close()
    events = list(stream.events())
    ends = [place for place, event in enumerate(events) if event.kind == "END"]
    assert len(ends) == 2 and ends[-1] == len(events) - 1
    written = "".join(event.text for event in events if event.kind == "WRITE")
    assert written == f"{alone(model, SOURCE)} {alone(model, 'a sofa')}"
    assert [event.units_read for event in events if event.kind == "READ"] == [*range(1, 9)]
    assert stream.instance().source_length == 8 and streams.engine.has_room


def test_blocks_are_heard_as_a_recording_is(listener: StreamingCausalLM) -> None:
    samples = np.concatenate([voice(0.9), silence(0.8), voice(0.6), silence(0.3)])
    blocks = [samples[start : start + 3000] for start in range(0, len(samples), 3000)]
    hearing = Hearing(listener, RATE)
    units = [hearing.push(block) for block in (*blocks, None)]
    expected = stream_units(
        listener, parse_policy("wait-k:1"), [each.units for each in units], Sampling()
    )
    expected = "".join(event.text for event in expected if event.kind == "WRITE")
    streams = Streams(listener, parse_policy("wait-k:1"), sampling=Sampling())
    stream, text = streams.open(hearing=Hearing(listener, RATE)), ""
    for block in blocks:
        stream.push(block)
        text += text_of(stream)
    stream.close()
    text += text_of(stream)
    logged = stream.instance()
    assert logged.prediction == text == expected != ""
    assert logged.source_type == "speech" and logged.source_length == 2600.0
    assert logged.compute_ms and logged.delays[-1] <= 2600.0
    with pytest.raises(ValueError, match="takes no blocks"):
        streams.open().push(blocks[0])


def test_live_sources_are_heard_in_one_forward_a_step(listener: StreamingCausalLM) -> None:
    policy, calls = parse_policy("wait-k:1"), list[int]()
    layer = listener.front_end.encoder.tower.layers[0]
    hook = layer.register_forward_hook(lambda *_: calls.append(1))
    recordings = [np.concatenate([voice(seconds), silence(0.8)]) for seconds in (0.6, 0.9, 1.2)]
    blocks = [np.split(each, range(2560, len(each), 2560)) for each in recordings]

    def open_all(count: int = 3) -> list[Stream]:
        streams = Streams(listener, policy, Limits(streams=count), Sampling())
        return [streams.open(hearing=Hearing(listener, RATE)) for _ in range(count)]

    together = open_all()
    for place in range(max(map(len, blocks)) + 1):
        for source, arriving in zip(together, blocks, strict=True):
            if place < len(arriving):
                source.push(arriving[place])
            else:
                source.close()
        for source in together:
            list(source.events())
    num_together = len(calls)
    with pytest.raises(ValueError, match="source is closed"):
        together[0].push(blocks[0][0])
    alone = [open_all(1)[0] for _ in blocks]
    for source, arriving in zip(alone, blocks, strict=True):
        for block in arriving:  # all at once: a step hears one of them
            source.push(block)
        assert not source.wants_more and not source.closed
        source.close()
        list(source.events())
    hook.remove()
    assert num_together < 0.6 * (len(calls) - num_together)
    for source, other in zip(together, alone, strict=True):
        assert source.ended and source.instance().prediction == other.instance().prediction != ""
        assert source.instance().delays == other.instance().delays
    left, bad, good = open_all()
    left.push(blocks[0][0])
    left.cancel()
    bad.push(np.zeros((2, 2, 2), np.float32))
    for block in blocks[2]:
        good.push(block)
    good.close()
    with pytest.raises(ValueError, match="dimension"):
        list(bad.events())
    assert bad.ended and left.ended and list(good.events())
    assert good.instance().prediction == alone[2].instance().prediction


def test_what_goes_wrong_ends_one_source(model: StreamingCausalLM, streams: Streams) -> None:
    good, bad = streams.open(), streams.open()
    good.push(SOURCE)
    bad.push([Unit("x", token_ids=(10**6,))])
    good.close()
    with pytest.raises(ValueError, match="token id 1000000 is none of the model's"):
        list(bad.events())
    assert bad.ended and not good.ended
    with pytest.raises(ValueError, match="token id 1000000"):
        bad.push("on")
    bad.close()
    bad.cancel()
    assert text_of(good) == alone(model, SOURCE)


def test_a_cancelled_source_ends_where_it_is(streams: Streams) -> None:
    streams.engine.limits = Limits(streams=3, pending=1)
    stream = streams.open()
    stream.push(SOURCE)
    assert streams.step() is not None and not stream.has_room
    stream.cancel()
    stream.cancel()
    assert stream.ended and [event.kind for event in stream.events()][-1] == "END"
    assert streams.step() is None
    logged = stream.instance()
    assert logged.source_length == 5 and len(logged.token_delays) <= 1  # "sofa" was not complete
    never = streams.open()
    never.cancel()
    assert list(never.events()) == [] and never.instance().prediction == ""


def test_an_empty_source_ends_at_the_next_step(streams: Streams) -> None:
    stream = streams.open()
    stream.close()
    assert list(stream.events()) == [] and stream.ended and stream.instance().forwards == 0


def test_lanes_are_limited(streams: Streams) -> None:
    first, *_ = [streams.open() for _ in range(3)]
    with pytest.raises(EngineFull, match="release one first"):
        streams.open()
    first.cancel()
    assert streams.open().lane == first.lane


def test_a_recorded_clock_waits_for_arrival_only() -> None:
    clock = ArrivalClock()
    clock.work(2.0, 0.5)
    clock.work(1.0, 0.5)
    assert clock.now_s == 3.0
    clock.work(5.0, 0.25)
    assert clock.now_s == 5.25


def test_another_thread_is_refused(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, leave, refused = threading.Event(), threading.Event(), []

    def step() -> None:
        inside.set()
        assert leave.wait(60)

    monkeypatch.setattr(streams.engine, "step", step)
    stream = streams.open()
    thread = threading.Thread(target=streams.step)
    thread.start()
    assert inside.wait(60)
    for call in (streams.step, stream.close, stream.cancel, lambda: stream.push("x"), streams.open):
        with pytest.raises(RuntimeError, match="drive it by a `Worker`"):
            call()
        refused.append(call)
    leave.set()
    thread.join()
    assert len(refused) == 5
    stream.push("x")
