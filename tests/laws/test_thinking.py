"""THE LAW with thoughts: streams that think give the logits of one masked forward, of three groups.

Lanes are pushed to at random, read ahead while they think, and mix in the steps of one engine.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import TOLERANCE, gap
from tests.thinking import thinking_model
from torch import Tensor

from proactivellm.core.packing import Sample, Written, pack
from proactivellm.core.unit import Unit
from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.causal_lm import LaneInput, StepOutput, StreamingCausalLM
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import Fixed, Offline, WaitK
from proactivellm.session.engine import Engine
from proactivellm.session.events import Ending, Event, Read, Thought, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.train.thoughts import thought_view
from proactivellm.train.views import collate

VOCAB = 400
QUESTION = [50, 51]
LONGEST = 3  # tokens of a thought
MAX_TOKENS = 4


class Watched(StreamingCausalLM):
    """Keeps what lanes bring to each step, and the logits they get, as the model makes them."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.inputs: list[list[LaneInput]] = []
        self.logits: dict[int, list[Tensor]] = {}

    def step(
        self, cache: ArrivalCache, inputs: Sequence[LaneInput], attention: bool = False
    ) -> StepOutput | None:
        self.inputs.append([*inputs])
        output = super().step(cache, inputs, attention)
        probing = [each.lane for each in inputs if each.probe is not None]
        for row, lane in enumerate(probing):
            assert output is not None
            self.logits.setdefault(lane, []).append(output.logits_PV[row].clone())
        return output


def watched(family: str = "qwen3", layout: str = "thoughts") -> Watched:
    model = thinking_model(family, layout, phi=3, of=Watched)
    assert isinstance(model, Watched) and model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = MAX_TOKENS
    return model


@dataclass
class Told:
    """What a stream told."""

    events: list[Event] = field(default_factory=list)

    @property
    def written(self) -> list[tuple[int | None, int]]:
        """Tokens, and the units each saw; the end of the source counts as one."""
        return [
            (event.token_id, event.units_read + event.source_finished)
            for event in self.events
            if isinstance(event, Thought | Write)
        ]


def sample_of(model: StreamingCausalLM, units: Sequence[Sequence[int]], told: Told) -> Sample:
    """What a stream read and wrote, as it is trained on."""
    assert model.thinking is not None
    thoughts = [e.token_id for e in told.events if isinstance(e, Thought)]
    answer = [e.token_id for e in told.events if isinstance(e, Write) and e.token_id is not None]
    opening, tail = [*model.prompt.source_head, *QUESTION], list(model.prompt.source_tail)
    return Sample(
        read={"source": [opening, *units, tail]},
        written={
            "thought": Written(head=model.prompt.target_head, tokens=thoughts),
            "target": Written(head=[model.thinking.answer], tokens=[*answer, 2]),
        },
    )


def law_gap(
    model: Watched, units: Sequence[Sequence[int]], told: Told, lane: int, policy: Policy
) -> float:
    """Gap of all logits of a stream to one masked forward, under the schedule of its policy."""
    sample = sample_of(model, units, told)
    assert model.thinking is not None
    view = thought_view(sample, model.thinking, policy.required_units)
    g = [*view["thought"], *view["target"]]
    assert [units_read for _, units_read in told.written] == g[: len(told.written)]
    batch = collate([pack(sample, [view], model.layout)])
    expected_NV = streams.masked_logits_of(model, batch, model.layout)[0]
    logits_NV = torch.stack(model.logits[lane])
    return gap(logits_NV, expected_NV[: len(logits_NV)])


def as_units(source: Sequence[Sequence[int]], final: bool = True) -> list[Unit]:
    return streams.as_units(source, final=final)


SOURCES = [streams.random_units(n, VOCAB, seed=n) for n in (5, 1, 3)]
TOGETHER = [source[:4] for source in SOURCES]


def think_together(model: Watched, policy: Policy, chunk: int | None, seed: int) -> list[Told]:
    """Three streams in one engine; a push is of `chunk` units, some steps after the last one."""
    rng = random.Random(seed)
    engine = Engine(
        model, policy, Limits(streams=3, thought_tokens=LONGEST), Sampling(temperature=1.0)
    )
    told = [Told() for _ in TOGETHER]
    lanes = [engine.open(Sampling(temperature=1.0, seed=n)) for n in range(len(TOGETHER))]
    for lane in lanes:
        engine.ask(lane, QUESTION)
    pushes = [
        [*streams.chunks(as_units(source, final=n != 2), chunk), *[[Unit.end()]] * (n == 2)]
        for n, source in enumerate(TOGETHER)
    ]
    while any(pushes) or any(not engine.state(lane).finished for lane in lanes):
        for lane in lanes:
            if pushes[lane] and rng.random() < 0.4:
                engine.push(lane, pushes[lane].pop(0))
        for event in engine.step() or ():
            told[event.lane].events.append(event)
    engine.check_integrity()
    return told


@pytest.mark.parametrize(
    ("family", "layout", "policy"),
    [
        ("qwen3", "thoughts", WaitK(k=1)),
        ("gemma3_text", "thoughts", WaitK(k=2)),
        ("mistral", "thoughts", Fixed(trace=(1, 1, 4, 4))),
        ("qwen3", "thoughts", Offline()),
        ("qwen3", "interleaved-thoughts", WaitK(k=1)),
        ("gemma3_text", "interleaved-thoughts", Offline()),
    ],
    ids=lambda value: getattr(value, "spec", value),
)
def test_streams_that_think_obey_the_law(family: str, layout: str, policy: Policy) -> None:
    texts = []
    for number, chunk in enumerate((1, None)):
        model = watched(family, layout)
        told = think_together(model, policy, chunk, seed=number)
        for lane, source in enumerate(TOGETHER):
            assert law_gap(model, source, told[lane], lane, policy) <= TOLERANCE, (chunk, lane)
        texts.append([each.written for each in told])
    assert texts[0] == texts[1], "how units come in changes nothing"
    ahead = [step for steps in model.inputs for step in steps if step.horizon is not None]
    reads_ahead = layout == "thoughts" and not isinstance(policy, Offline)
    assert bool(ahead) == reads_ahead


def think(source: Sequence[Sequence[int]], depth: int | None = None) -> tuple[Watched, Told]:
    model = watched()
    limits = Limits(thought_tokens=4, depth=depth)
    session = Session(model, WaitK(k=1), Sampling(), limits=limits)
    session.ask(QUESTION)
    return model, Told([*session.advance(as_units(source))])


def test_a_sentence_changes_first_what_the_end_of_the_thought_before_it_predicts() -> None:
    """The one-row shift: what closes thought 2 sees sentence 3; nothing before does."""
    source = SOURCES[0]
    model, told = think(source)
    other, told_other = think([*source[:2], [9] * len(source[2]), *source[3:]])
    first = [units_read for _, units_read in told.written].index(3)
    assert told.written[first - 1][0] in model.thinking.closing
    assert told.written[:first] == told_other.written[:first]
    for t in range(first):
        assert torch.equal(model.logits[0][t], other.logits[0][t])
    assert gap(model.logits[0][first], other.logits[0][first]) > 1e-2


def test_a_lane_reads_the_next_sentence_in_a_forward_in_which_it_thinks() -> None:
    """All that is read costs no forward of its own, and is read while thoughts are written."""
    model, told = think(SOURCES[0])
    num_written = sum(isinstance(event, Thought | Write) for event in told.events)
    assert len(model.inputs) == num_written + (told.events[-1].how == Ending.LENGTH_LIMIT)
    groups = [[piece.group for piece in steps[0].pieces] for steps in model.inputs]
    assert groups[0] == ["source", "source", "thought", *["source"] * 4]
    reads = [n for n, event in enumerate(told.events) if isinstance(event, Read)]
    assert reads == [0, 1, 2, 3, 4], "all of them with the first token of the first thought"
    # Live, a sentence that arrives in the middle of a thought is read with its next token.
    session = Session(watched(), WaitK(k=1), limits=Limits(thought_tokens=4))
    engine, lane = session._engine, session._lane
    engine.push(lane, as_units(SOURCES[0][:1], final=False))
    engine.step()
    engine.push(lane, as_units(SOURCES[0][1:2], final=False))
    events = engine.step()
    assert [type(event) for event in events or ()] == [Read, Thought]
    assert engine.state(lane).units_read == 1 and engine.state(lane).ahead == 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_says_which_stages_there_are(depth: int) -> None:
    model, told = think(SOURCES[2], depth)
    thoughts = [event for event in told.events if isinstance(event, Thought)]
    ids = model.thinking
    assert ids is not None
    assert sum(event.closes for event in thoughts) == 3 + depth - 1
    assert [event.token_id for event in thoughts if event.answers] == [ids.answer]
    opened = [event.token_id for event in thoughts if event.token_id in ids.stages]
    assert opened == [*ids.stages[: depth - 1]]
    assert {event.stage for event in thoughts} == {0, *range(1, depth + 1)}
    longest = [event.number for event in thoughts if not event.closes and event.stage == 0]
    assert max(map(longest.count, longest)) <= 4
    answer = [event.token_id for event in told.events if isinstance(event, Write)]
    assert answer and not {*answer} & {*ids.all}


def test_a_stream_that_thinks_goes_on_from_a_snapshot_and_a_copy() -> None:
    model = watched()
    limits = Limits(thought_tokens=5)
    session = Session(model, WaitK(k=1), Sampling(), limits=limits)
    engine, lane = session._engine, session._lane
    engine.push(lane, as_units(SOURCES[0], final=False))
    for _ in range(3):  # in the middle of the first thought, with all units read ahead
        engine.step()
    assert engine.state(lane).ahead == 4
    twin = session.clone()
    left = Told([*session.advance(Unit.end())]), Told([*twin.advance(Unit.end())])
    assert left[0].written == left[1].written and left[0].written
    texts = ["".join(e.text for e in one.events if isinstance(e, Thought)) for one in left]
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"policy": "entropy:1.0"}, "looks at what is written: a model that thinks reads"),
        ({"policy": "sentence-wait-k:1"}, "looks at what is written"),
        ({"window": True}, "keeps all it has read in view: leave the window out"),
        ({"limits": Limits(depth=4)}, "depth=4: the model thinks at depths 1 to 3"),
    ],
)
def test_what_a_model_that_thinks_cannot_do_is_refused(what: dict, message: str) -> None:
    from proactivellm.policy.spec import parse_policy
    from proactivellm.session.window import Window

    policy = parse_policy(what.get("policy", "wait-k:1"))
    window = Window(source=64, target=64) if "window" in what else None
    with pytest.raises(ValueError, match=message):
        Session(watched(), policy, window=window, limits=what.get("limits"))
