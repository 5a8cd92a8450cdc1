"""Streams that think: what they tell and log apart from the answer, and when, on a stated clock."""

import io
import itertools
from pathlib import Path

import pytest
from tests.thinking import thinking_model

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance, LoggedThought, read_log, write_instance
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.session.limits import Limits
from proactivellm.stream import Job, Streams, run_streams

SOURCE = "The dog sleeps. The cat watches it. A man stands on a ladder."
QUESTION = "Who sleeps?"
STEP_S, WORD_S = 0.05, 0.4  # 20 tokens a second, 150 words a minute
LIMITS = Limits(streams=2, thought_tokens=4, depth=2)


@pytest.fixture(scope="module")
def model() -> StreamingCausalLM:
    model = thinking_model()
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 5
    return model


def logged(model: StreamingCausalLM, policy: Policy) -> Instance:
    job = Job(
        index=0, source=f"{QUESTION} {SOURCE}", num_asked=len(QUESTION.split()), step_s=STEP_S
    )
    (instance,) = run_streams(model, policy, [job], limits=LIMITS)
    return instance


def test_thoughts_are_logged_with_what_they_saw_and_when(
    model: StreamingCausalLM, tmp_path: Path
) -> None:
    instance = logged(model, WaitK(k=1))
    thoughts = instance.thoughts or []
    assert [thought.stage for thought in thoughts] == [0, 0, 0, 1]
    assert [thought.units_read for thought in thoughts] == [1, 2, 3, 3]
    assert instance.waited_tokens == len(
        [*itertools.chain(*(u.token_ids for u in _sentences(model)[:1]))]
    )
    # Each begins as soon as its sentence is there and the one before it is over.
    ends_s, now_s = [3 * WORD_S, 7 * WORD_S, 13 * WORD_S], 0.0
    for thought, end_s in zip(thoughts, [*ends_s, ends_s[-1]], strict=True):
        assert thought.began_ms / 1000 == pytest.approx(max(now_s, end_s) + STEP_S)
        now_s = thought.ended_ms / 1000
        assert now_s == pytest.approx(thought.began_ms / 1000 + (thought.tokens - 1) * STEP_S)
    # One forward for each token written, and the one at which the answer was cut.
    written = sum(thought.tokens for thought in thoughts) + 1 + len(instance.token_delays)
    assert instance.forwards in (written, written + 1)
    with (tmp_path / "log").open("w") as file:
        write_instance(file, instance)
    assert read_log(tmp_path / "log") == [instance]
    assert isinstance(read_log(tmp_path / "log")[0].thoughts[0], LoggedThought)


def test_who_thinks_after_reading_answers_later(model: StreamingCausalLM) -> None:
    """The same thoughts' worth of tokens, all of them after the end of the source."""
    streaming, batch = logged(model, WaitK(k=1)), logged(model, Offline())
    delays = [each.first_token_ms - each.source_ms for each in (streaming, batch)]
    assert batch.waited_tokens == sum(len(unit.token_ids) for unit in _sentences(model))
    assert [thought.stage for thought in batch.thoughts or []] == [0, 0, 0, 1]
    assert min(thought.began_ms for thought in batch.thoughts or []) > batch.source_ms
    assert delays[0] < 0.75 * delays[1]


def _sentences(model: StreamingCausalLM) -> list:
    segmenter = Streams(model, WaitK(k=1)).segmenter.clone()
    segmenter.ask(QUESTION)
    return segmenter.segment(SOURCE)[:-1]


def test_thoughts_are_events_apart_from_the_answer(model: StreamingCausalLM) -> None:
    """Fed character by character, a stream thinks and answers as one that is recorded."""
    recorded = logged(model, WaitK(k=1))
    stream = Streams(model, WaitK(k=1), LIMITS).open()
    stream.ask(QUESTION)
    events = []
    for character in SOURCE:
        stream.push(character)
        events += stream.events()
    stream.close()
    events += stream.events()
    kinds = [kind for kind, _ in itertools.groupby(event.kind for event in events)]
    assert kinds[:4] == ["READ", "THINK", "READ", "THINK"] and kinds[-2:] == ["WRITE", "END"]
    thoughts: dict[int, str] = {}
    for event in events:
        if event.kind == "THINK":
            assert event.thought is not None
            thoughts[event.thought] = thoughts.get(event.thought, "") + event.text
    assert [*thoughts.values()] == [thought.text for thought in recorded.thoughts or []]
    assert sum(event.closes for event in events) == len(thoughts)
    answer = "".join(event.text for event in events if event.kind == "WRITE")
    assert answer == recorded.prediction == stream.instance().prediction
    with pytest.raises(ValueError, match="a question stands before its source"):
        stream = Streams(model, WaitK(k=1), LIMITS).open()
        stream.push("One. Two")
        stream.events()
        next(stream.events(), None)
        stream.ask(QUESTION)


def test_a_log_without_thoughts_is_as_it_was(tmp_path: Path) -> None:
    instance = Instance(
        index=0,
        source="a",
        source_length=1,
        prediction="b",
        prediction_length=1,
        delays=[1],
        elapsed=[1.0],
        token_delays=[1, 1],
        policy="wait-k:1",
        forwards=None,
        tokens=None,
    )
    file = io.StringIO()
    write_instance(file, instance)
    assert "thought" not in file.getvalue() and "waited" not in file.getvalue()
