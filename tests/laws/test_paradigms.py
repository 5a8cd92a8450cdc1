"""What each layout is by what it does: the four of a survey (arXiv 2603.04592, Table 1) and ours.

Concatenated (composite) tokens are none of them: see docs/guide/layouts.md.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, NO_PROMPT, PROMPT, TOLERANCE, Recorder, gap
from tests.laws.test_forwards import counted
from tests.laws.test_reencoded import batch_logits
from torch import Tensor

from proactivellm.bench.baselines import reencode_prefix
from proactivellm.core.layout import LAYOUTS, SOURCE, TARGET, make_layout
from proactivellm.core.schedule import validate, wait_k
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.policy.head import Head
from proactivellm.policy.spec import POLICIES, parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session

Folder = Callable[..., Path]
# Where nobody thinks, `interleaved-thoughts` is `interleaved`.
NAMES = tuple(name for name in LAYOUTS if name != "interleaved-thoughts")
SPECS = {
    "wait-k": "wait-k:2",
    "sentence-wait-k": "sentence-wait-k:2",
    "fixed": "fixed:1-1-3-4",
    "entropy": "entropy:4.7",
    "confidence": "confidence:0.02",
    "learned": "learned:0.6",
    "control": "control:0.003",
    "attention": "attention:0.4",
    "alignatt": "alignatt:1,norm=running,pool=median,min_mass=0.05",
    "concentration": "concentration:0.5",
    "combined": "combined:0.01",
    "local-agreement": "local-agreement:2,draft=4",
    "hold-n": "hold-n:1,draft=4",
    "oracle": "oracle:0.3",
    "offline": "offline",
}


def load(
    folder_of: Folder, layout: str, phi: int = 0, prompt: bool = True, **more: str
) -> Recorder:
    texts = PROMPT if prompt else NO_PROMPT
    settings = {"layout": layout, "phi": phi, "boundary": "token", "early_end": True, **more}
    return streams.load(folder_of("qwen3"), texts, **settings)


def entries(session: Session, group: str, first: int) -> Tensor:
    """Keys and values of the first entries of a group, of all layers."""
    engine, lane = session._engine, session._lane
    cache = engine.snapshot(lane)["cache"]
    rows = (cache["kinds"][0] == engine.model.layout.index[group]).nonzero()[:first, 0]
    assert len(rows) == first
    return torch.cat([part[rows].flatten() for part in (*cache["keys"], *cache["values"])])


@pytest.mark.parametrize("name", NAMES)
def test_offline_every_layout_is_the_batch_model(folder_of: Folder, name: str) -> None:
    """With the target's positions after those of the source, which is what phi is for."""
    source = streams.random_units(5, 100, seed=3)
    own_counter = len(set(make_layout(name).counter)) > 1 and not make_layout(name).joins
    model = load(folder_of, name)
    whole = [*model.prompt.source_head, *sum(source, []), *model.prompt.source_tail]
    if own_counter:
        model = load(folder_of, name, phi=len(whole))
    state = streams.feed(Session(model, Offline()), streams.as_units(source), None).state
    expected = batch_logits(model, source, state)
    assert gap(model.recorded(len(expected)), expected) <= TOLERANCE
    if own_counter:
        model = load(folder_of, name)
        model.forced = {0: state.target[state.num_head :]}
        streams.feed(Session(model, Offline()), streams.as_units(source), None)
        assert gap(model.recorded(len(expected)), expected) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_read_changes_nothing(folder_of: Folder, name: str) -> None:
    model = load(folder_of, name)
    known, *others = (streams.random_units(5, 100, seed) for seed in (3, 4, 5))
    logits = []
    for unread in others:
        session = Session(model, WaitK(k=2))
        streams.feed(session, streams.as_units([*known, *unread]), None)
        seen = sum(g <= len(known) for g in session.state.delays)
        assert 0 < seen < len(session.state.delays)
        logits.append(model.recorded(seen + 1))
    assert logits[0][:-1].equal(logits[1][:-1]), "what has read no further"
    assert not logits[0][-1].equal(logits[1][-1])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_read_and_a_write_leave_untouched(folder_of: Folder, name: str) -> None:
    source = streams.as_units(streams.random_units(6, 100, seed=3))
    model = load(folder_of, name)
    sources = []
    for target in ([20, 21, 22, 23, 24, 25, END], [30, 31, 32, 33, 34, 35, END]):
        model.forced = {0: target}
        session = streams.feed(Session(model, WaitK(k=2)), source[:4], 1)
        before = entries(session, TARGET, 3)
        streams.feed(session, source[4:5], 1)
        changed = gap(entries(session, TARGET, 3), before)
        assert (changed > 1e-2) if name == "reencoded" else (changed == 0), "READ"
        sources.append(entries(session, SOURCE, session.state.counts[SOURCE]))
    changed = gap(*sources)
    # Fed again in batch order, the source stands before all that is written, and is kept.
    assert (changed > 1e-2) if name == "interleaved" else (changed == 0), "WRITE"


@pytest.mark.parametrize("name", [*NAMES, "without reuse"])
def test_tokens_fed_grow_with_the_stream_or_with_its_square(folder_of: Folder, name: str) -> None:
    """One token a unit, and as many written: R reads and W writes under wait-2."""
    model = load(folder_of, "reencoded" if name == "without reuse" else name, prompt=False)
    fed = []
    for size in (4, 8, 12):
        source = [[token] for token in streams.random_ids(size, 100, seed=3)]
        model.forced = {0: [*streams.random_ids(size - 1, 100, seed=4), END]}
        assert model.model.generation_config is not None
        model.model.generation_config.max_new_tokens = size
        if name == "without reuse":
            run = reencode_prefix(model.model, source, model.prompt, size, k=2)
            fed.append(run.fed)
            continue
        with counted(model) as counts:
            streams.feed(Session(model, WaitK(k=2)), streams.as_units(source), 1)
        fed.append(counts.tokens)
        once = size + size  # the head of the target is one token, its end is not fed
        g = wait_k(2, size, size)
        again = sum(t for t in range(1, size) if g[t] > g[t - 1])  # all written by then
        assert fed[-1] == (once + again if name == "reencoded" else once)
    curvature = (fed[2] - fed[1]) - (fed[1] - fed[0])
    assert curvature == {"reencoded": 4 * 4, "without reuse": 2 * 4 * 4}.get(name, 0)


def test_an_untrained_model_writes_what_generate_writes(folder_of: Folder) -> None:
    """The prompt is closed before what is written, wherever the source stands."""
    model, trained = load(folder_of, "reencoded"), load(folder_of, "grouped").prompt
    assert not model.prompt.source_tail and trained.source_tail
    assert model.prompt.target_head == (*trained.source_tail, *trained.target_head)
    assert model.model.generation_config is not None
    model.model.generation_config.eos_token_id = []  # it writes as many as it is asked for
    model.model.generation_config.max_new_tokens = 9
    source = streams.random_units(6, 100, seed=3)
    run = reencode_prefix(model.model, source, model.prompt, 9, k=2)
    with counted(model) as counts:
        state = streams.feed(Session(model, WaitK(k=2)), streams.as_units(source), 1).state
    assert tuple(state.target[state.num_head :]) == run.tokens
    assert counts.tokens < run.fed


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_makes_a_schedule(folder_of: Folder, name: str) -> None:
    """Reads never decrease and never pass the source; whole units of one lane each."""
    # What a CTC head hears is evidence of recordings alone: tests/laws/test_spoken.py.
    assert SPECS.keys() == POLICIES.keys() - {"ctc"}
    model = load(folder_of, name, read_token="<s>")
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 6
    width = model.model.config.hidden_size
    weights = torch.linspace(-1, 1, width, dtype=torch.float64)
    scalars = torch.zeros(0, dtype=torch.float64)
    model.head = Head(hidden_D=weights, scalar_S=scalars, bias=0.0, scalars=(), about={})
    source = streams.as_units(streams.random_units(6, 100, seed=3))
    engine = Engine(model, Offline(), Limits(streams=len(SPECS)), Sampling())
    for spec in SPECS.values():
        policy = parse_policy(spec, whole_source=True)
        engine.push(engine.open(policy=policy), source)
    while engine.step() is not None:
        pass
    delays = {spec: engine.state(lane).delays for lane, spec in enumerate(SPECS.values())}
    assert all(engine.state(lane).error is None for lane in range(len(SPECS)))
    for g in delays.values():
        assert g
        validate(g, len(source))
    assert delays["wait-k:2"] == wait_k(2, 6, len(delays["wait-k:2"]))
    assert delays["fixed:1-1-3-4"][:5] == [1, 1, 3, 4, 6][: len(delays["fixed:1-1-3-4"])]
    assert set(delays["offline"]) == {6}
