"""The main path: delays and times of words, the clock that overlaps listening and computing."""

from types import SimpleNamespace

import pytest
from tests.families import OBEYING, random_model
from tests.tokenizers import build

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.output.log import Instance
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import parse_policy
from proactivellm.session.events import Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream import Job, StreamsFailed, Transcript, run_streams, stream_text

SOURCE = "Tom kann sich nicht gut Namen merken."


@pytest.fixture(scope="module")
def model() -> StreamingCausalLM:
    return load("tatoeba-de-en")


def write(text: str, units: int) -> Write:
    return Write(lane=0, token_id=0, text=text, units_read=units)


def test_a_word_counts_when_its_last_character_was_written() -> None:
    transcript = Transcript()
    transcript.add(write("Good", 1), 10.0)
    transcript.add(write("bye", 2), 20.0)
    transcript.add(write(" old", 2), 20.0)
    transcript.add(write(" ", 3), 30.0)
    transcript.add(write("friend.", 4), 30.0)
    # "Goodbye" ends with unit 2 at 20 ms, "old" too; "friend." comes whole with unit 4 at 30 ms
    assert transcript.words() == ([2, 2, 4], [20.0, 20.0, 30.0])


def test_characters_count_where_there_are_no_spaces() -> None:
    transcript = Transcript(token_delays=[1, 2, 3])
    transcript.add(write("我昨", 1), 10.0)
    transcript.add(write("天 A", 2), 20.0)
    transcript.add(write("B。", 3), 20.0)
    chinese = transcript.instance(Job(index=0, source="a b c"), "p", 30.0, 3)
    assert chinese.latency_unit == "char" and chinese.prediction == "我昨天 AB。"
    assert chinese.delays == [1, 1, 2, 2, 3, 3] and chinese.prediction_length == 6
    units = ["我", "昨", "天", "AB", "。"]
    assert transcript.times(units) == ([1, 1, 2, 3, 3], [10.0, 10.0, 20.0, 20.0, 20.0])
    assert chinese.elapsed == [10.0, 10.0, 20.0, 20.0, 20.0, 20.0]


@pytest.mark.parametrize(
    ("turns", "whole"), [(("你好。", "再见。"), "你好。再见。"), (("Hi.", "Bye."), "Hi. Bye.")]
)
def test_turns_follow_each_other_as_they_are_written(turns: list[str], whole: str) -> None:
    transcript = Transcript()
    for text in turns:
        transcript.add(write(text, 1), 10.0)
        transcript.end_turn(SimpleNamespace(**transcript.counted))  # type: ignore[arg-type]
    assert transcript.text == whole


def test_live_stream_and_batch_agree(model: StreamingCausalLM) -> None:
    policy = parse_policy("wait-k:2")
    events = []
    stream = stream_text(model, policy, SOURCE, sampling=Sampling())
    while True:
        try:
            events.append(next(stream))
        except StopIteration as end:
            live = end.value
            break
    (batched,) = run_streams(model, policy, [Job(index=0, source=SOURCE)], sampling=Sampling())
    assert live.prediction == batched.prediction != ""
    assert live.delays == batched.delays
    assert live.token_delays == batched.token_delays
    assert "".join(e.text for e in events if e.kind == "WRITE") == live.prediction
    assert [e.text for e in events if e.kind == "READ"] == SOURCE.split()
    assert events[0].kind == "READ" and events[2].kind == "WRITE"  # R R W: wait-2
    *told, end = events
    assert end.kind == "END" and end.reason is None
    why = [event.reason.text for event in told if event.reason is not None]
    assert len(why) == len(told) and set(why) == {"policy", "source finished"}
    assert told[-1].reason == Reason.WRITE_SOURCE_FINISHED


def test_wait_k_delays_are_those_of_the_schedule(model: StreamingCausalLM) -> None:
    source = "Sie ist alt genug, um für sich selbst zu sorgen."
    for k in (1, 3):
        (instance,) = run_streams(
            model, parse_policy(f"wait-k:{k}"), [Job(index=0, source=source)], sampling=Sampling()
        )
        length = instance.source_length
        expected = [min(k + t, length) for t in range(instance.prediction_length)]
        assert instance.delays == expected


def test_clock_waits_for_arrival_and_adds_computing(model: StreamingCausalLM) -> None:
    (instance,) = run_streams(
        model,
        parse_policy("wait-k:3"),
        [Job(index=0, source=SOURCE)],
        rate_wpm=60.0,  # a word a second
        sampling=Sampling(),
    )
    assert instance.source_ms == pytest.approx(7000.0)
    assert instance.first_token_ms is not None
    assert 3000.0 < instance.first_token_ms < 4000.0  # the third word arrives at 3 s
    for delay, at_ms in zip(instance.delays, instance.elapsed, strict=True):
        assert at_ms > 1000.0 * delay


def test_lanes_do_not_change_what_is_written(model: StreamingCausalLM) -> None:
    sources = [SOURCE, "", "Warum?", f"{SOURCE} {SOURCE}", "Ich weiß nicht, wann er kommt."]
    jobs = [Job(index=i, source=s) for i, s in enumerate(sources)]
    policy = parse_policy("entropy:threshold=1.5,max_lag=4")
    runs = []
    for lanes in (1, 2, 5):
        instances = run_streams(
            model, policy, jobs, limits=Limits(streams=lanes), sampling=Sampling()
        )
        runs.append(sorted((i.index, i.prediction, tuple(i.delays)) for i in instances))
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][1] == (1, "", ())  # an empty source has an empty target


def test_queues_may_be_bounded(model: StreamingCausalLM) -> None:
    jobs = [Job(index=i, source=f"{SOURCE} " * (i + 1)) for i in range(3)]
    for spec in ("wait-k:2", "offline"):
        runs = []
        for pending in (None, 1, 4):
            limits = Limits(streams=2, pending=pending)
            instances = run_streams(
                model, parse_policy(spec), jobs, limits=limits, sampling=Sampling()
            )
            runs.append([(i.index, i.prediction, i.delays, i.source_length) for i in instances])
        assert sorted(runs[0]) == sorted(runs[1]) == sorted(runs[2])


def test_live_stream_and_batch_agree_in_a_window(model: StreamingCausalLM) -> None:
    policy, window = parse_policy("wait-k:2"), Window(source=24, target=24, sinks=1)
    source = " ".join([SOURCE] * 6)
    events = stream_text(model, policy, source, sampling=Sampling(), window=window)
    text = "".join(event.text for event in events if event.kind == "WRITE")
    jobs = [Job(index=0, source=source), Job(index=1, source="Warum?")]
    short, long = sorted(
        run_streams(model, policy, jobs, sampling=Sampling(), window=window),
        key=lambda instance: instance.source_length,
    )
    assert long.prediction == text != ""
    assert long.dropped_units > 0 < long.dropped_tokens
    assert (short.dropped_units, short.dropped_tokens) == (0, 0)


def test_sources_that_cannot_be_streamed_do_not_end_the_others() -> None:
    limited = StreamingCausalLM(
        random_model("gpt2", OBEYING["gpt2"]), build("byte_level"), StreamSettings()
    )
    limited.model.generation_config.max_new_tokens = 12  # a random model ends no target by itself
    sources = ["ab cd", "ab " * 80, "cd", "cd " * 90, "ef"]
    jobs = [Job(index=i, source=source) for i, source in enumerate(sources)]
    stream = run_streams(limited, parse_policy("wait-k:1"), jobs, limits=Limits(streams=2))
    finished: list[Instance] = []
    with pytest.raises(StreamsFailed) as raised:
        finished.extend(stream)
    assert sorted(instance.index for instance in finished) == [0, 2, 4]
    reasons = sorted(str(raised.value).splitlines())
    assert [reason[:30] for reason in reasons] == [
        "source 1: the stream has reach",
        "source 3: the stream has reach",
    ]
    window = Window(source=32, target=32)
    assert len([*run_streams(limited, parse_policy("wait-k:1"), jobs, window=window)]) == 5
