"""Oracles: what they look at is the model after the whole source, and only where that is given."""

from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import Recorder
from tests.models import save_tiny

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.forced import forced_probes
from proactivellm.policy.evidence import Acceptance
from proactivellm.policy.oracle import Oracle
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import PolicySpec, parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import Probed, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.window import Window


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


def load(folder: Path, **settings: str) -> Recorder:
    model = streams.load(folder, boundary="token", **settings)
    model.model.generation_config.max_new_tokens = 12
    return model


def units(model: StreamingCausalLM, count: int, seed: int, final: bool = True) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed), final)


def check_by_hand(
    model: StreamingCausalLM, source: list[Unit], events: list[Write | Probed], policy: Oracle
) -> int:
    """Every look of one lane against a forward over the whole source; how many there were."""
    pieces = [model.prompt.source_head, *(unit.tokens for unit in source)]
    pieces[-1] = [*pieces[-1], *model.prompt.source_tail]
    writes = [event.token_id for event in events if isinstance(event, Write)]
    target = [token for token in writes if token is not None]  # else text that was held back
    probes = [(len(source), t) for t in range(len(target) + 1)]
    outputs = list(forced_probes(model, pieces, target, probes))
    num_written = looks = 0
    for event in events:
        if isinstance(event, Write):
            num_written += 1
            continue
        probs = outputs[num_written].logits_PV[0].softmax(-1)
        expected = float(probs[event.token_id] / probs.max())
        assert event.seen[Acceptance()].item() == pytest.approx(expected, rel=1e-3)
        if event.reason in (Reason.WRITE_RULE, Reason.READ_RULE):
            looks += 1
            assert event.reason.writes == (expected >= policy.acceptable - 1e-6)
    return looks


@pytest.mark.parametrize("layout", ["grouped", "interleaved", "reencoded"])
@pytest.mark.parametrize("spec", ["oracle:0.3,min_lag=0", "oracle:agree"])
def test_it_looks_at_the_model_after_the_whole_source(folder, layout, spec):
    model = load(folder, layout=layout)
    policy = parse_policy(spec, whole_source=True)
    engine = Engine(model, policy, Limits(streams=3), Sampling())
    sources = [units(model, count, seed) for seed, count in enumerate((4, 9, 6, 7))]
    events: dict[int, list[Write | Probed]] = {}
    waiting, running, looks = list(enumerate(sources)), {}, 0
    while waiting or running:
        while waiting and engine.has_room:  # lanes are used again
            number, source = waiting.pop(0)
            lane = engine.open(watch=[Acceptance()])
            engine.push(lane, source)
            running[lane], events[lane] = number, []
        for event in engine.step() or []:
            if isinstance(event, Write | Probed):
                events[event.lane].append(event)
        for lane in [lane for lane in running if engine.state(lane).finished]:
            looks += check_by_hand(model, sources[running.pop(lane)], events[lane], policy)
            engine.release(lane)
    assert looks > 10


@pytest.mark.parametrize("share", ["0", "1.1", "-1", "x"])
def test_a_share_lies_above_0(share):
    with pytest.raises(ValueError, match="acceptable must be"):
        parse_policy(f"oracle:{share}", whole_source=True)


def test_a_stream_has_no_oracle():
    PolicySpec.parse("oracle:0.3")
    with pytest.raises(ValueError, match=r"'oracle:0.3' looks at the whole source.*`evaluate`"):
        parse_policy("oracle:0.3")


def test_a_source_that_goes_on_is_refused(folder):
    session = Session(load(folder), Oracle(acceptable=0.3))
    with pytest.raises(ValueError, match="more of this one may come"):
        session.push(units(load(folder), 6, 1, final=False))


def test_features_that_were_not_kept_are_refused(folder):
    model = load(folder)
    embedded = [
        Unit(features=model.model.get_input_embeddings()(torch.tensor(unit.token_ids)))
        for unit in units(model, 6, 1, final=False)
    ]
    session = Session(model, Oracle(acceptable=0.3))
    with pytest.raises(ValueError, match="features were not kept"):
        session.push([*embedded, Unit.end()])


def test_a_source_that_leaves_the_window_is_refused(folder):
    model = load(folder)
    policy = Oracle(acceptable=0.3, min_lag=20)
    session = Session(model, policy, window=Window(source=24))
    with pytest.raises(ValueError, match="a part has left the window"):
        session.push(units(model, 40, 1))
