"""What a stream costs: R reads and W writes take at most R + W + 1 forwards, and source tokens
never pass the output layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.laws import streams
from tests.laws.streams import END, Recorder
from tests.models import FAMILIES

from proactivellm.core.unit import Unit
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.session import Session

Folder = Callable[..., Path]
POLICIES = (
    "wait-k:1",
    "wait-k:3",
    "wait-k:30",
    "offline",
    "fixed:1-1-4-4-8",
    "entropy:4.4",
    "entropy:4.9",
    "confidence:0.08",
    "attention:threshold=0.2",
    "attention:threshold=0.3,min_lag=2,max_lag=4",
)


@dataclass
class Counts:
    """Calls seen by hooks on the model itself, not by the library's own counters."""

    forwards: int = 0
    tokens: int = 0
    output_rows: int = 0


@contextmanager
def counted(model: Recorder) -> Iterator[Counts]:
    counts = Counts()
    model.num_probes = 0

    def decoder(module: object, args: tuple, kwargs: dict, output: object) -> None:
        counts.forwards += 1
        counts.tokens += kwargs["inputs_embeds"].shape[0] * kwargs["inputs_embeds"].shape[1]

    def output_layer(module: object, args: tuple, output: object) -> None:
        counts.output_rows += args[0].shape[:-1].numel()

    hooks = [
        model.model.get_decoder().register_forward_hook(decoder, with_kwargs=True),
        model.model.get_output_embeddings().register_forward_hook(output_layer),
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def run(model: Recorder, policy: Policy, units: list[Unit], size: int | None) -> Counts:
    """A whole stream: its forwards are bounded, its output rows are its probes."""
    with counted(model) as counts:
        session = streams.feed(Session(model, policy), units, size)
    state = session.state
    num_reads, num_writes = state.units_read, state.num_written
    assert state.finished and num_reads == sum(not unit.is_end for unit in units)
    assert counts.forwards <= num_reads + num_writes + 1
    assert counts.forwards == state.forwards
    assert counts.tokens == state.tokens
    assert counts.output_rows == model.num_probes <= counts.forwards
    return counts


@pytest.mark.parametrize(("number", "spec"), [*enumerate(POLICIES)])
def test_reads_and_writes_bound_the_forwards(folder_of: Folder, number: int, spec: str) -> None:
    seed = number % 2  # policies meet boundaries, and ways of pushing, in turn
    model = streams.load(folder_of("llama", "word_piece"), boundary=("word", "token")[seed])
    source = streams.random_units(10, len(model.tokenizer), seed)
    open_ended = [*streams.as_units(source, final=False), Unit.end()]
    run(model, parse_policy(spec), streams.as_units(source), (1, None)[seed])
    run(model, parse_policy(spec), open_ended, (None, 1)[seed])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_projects_only_what_is_probed(folder_of: Folder, family: str) -> None:
    model = streams.load(folder_of(family), boundary="token")
    source = streams.random_units(8, len(model.tokenizer), seed=1)
    num_tokens = sum(map(len, source))
    target = [*streams.random_ids(6, len(model.tokenizer), seed=2), END]
    model.forced = {0: target}
    prompt = model.prompt
    closing = len(prompt.source_head) + len(prompt.source_tail)
    offline = run(model, Offline(), streams.as_units(source), None)
    assert offline.output_rows == offline.forwards == len(target)
    assert offline.tokens == num_tokens + closing + len(prompt.target_head) + len(target) - 1
    wait = run(model, WaitK(k=2), streams.as_units(source), 1)
    assert wait.output_rows == len(target)


def test_sixty_words_at_wait_5(folder_of: Folder) -> None:
    """The case that takes 177 forwards where every read is followed by a second one."""
    model = streams.load(folder_of("qwen2"), boundary="token")
    source = [[token] for token in streams.random_ids(60, len(model.tokenizer), seed=3)]
    target = [*streams.random_ids(59, len(model.tokenizer), seed=4), END]
    model.model.generation_config.max_new_tokens = len(target)
    model.forced = {0: target}
    counts = run(model, WaitK(k=5), streams.as_units(source), 1)
    assert len(target) == 60 and counts.output_rows == 60
    assert counts.forwards == 4 + 60 <= 121  # 4 reads before the first write; the rest are fused
    prompt = model.prompt
    fixed = len(prompt.source_head) + len(prompt.source_tail) + len(prompt.target_head)
    assert counts.tokens == 60 + fixed + 59, "each token once"
    assert run(model, WaitK(k=5), streams.as_units(source), None).forwards == 60
    assert run(model, Offline(), streams.as_units(source), 1).forwards == 59 + 60


def test_sixty_words_of_two_tokens_at_wait_5(folder_of: Folder) -> None:
    """At word boundaries a word's end is seen by a probe that may end in a READ."""
    model = streams.load(folder_of("qwen2", "word_piece"), boundary="word")
    starts = [i for i, s in enumerate(model.word_starts) if s and i >= streams.FIRST_TEXT_ID]
    inside = [i for i, point in enumerate(model.decision_points) if not point]
    words = [[starts[i % len(starts)], inside[i % len(inside)]] for i in range(60)]
    target = [*(token for word in words for token in word), END]
    model.model.generation_config.max_new_tokens = len(target)
    model.forced = {0: target}
    source = [[token] for token in streams.random_ids(60, len(model.tokenizer), seed=3)]
    counts = run(model, WaitK(k=5), streams.as_units(source), 1)
    num_probes_that_read = 55  # after each of the words 1 to 55
    assert counts.output_rows == len(target) + num_probes_that_read
    assert counts.forwards == 4 + len(target) + num_probes_that_read <= 60 + len(target) + 1
