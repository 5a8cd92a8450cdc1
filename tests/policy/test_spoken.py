"""The policy that counts spoken words, and that nothing is written while nobody speaks."""

from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, Recorder
from tests.models import save_tiny

from proactivellm.core.unit import Unit
from proactivellm.modality.loading import load
from proactivellm.policy.evidence import Seen
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import parse_policy
from proactivellm.policy.spoken import Spoken
from proactivellm.session.events import Read, Write
from proactivellm.session.session import Session

WORDS = "The window of larger streets"
#       words over, and silence, after each unit
SPOKEN = [(0.0, True), (0.2, False), (1.0, False), (1.0, True), (1.9, False), (3.0, False)]
SPOKEN += [(3.0, True), (3.5, False), (4.0, False)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    model = streams.load(save_tiny("qwen3", tmp_path_factory.mktemp("qwen3")))
    assert model.model.generation_config is not None
    target = [*model.tokenizer.encode(WORDS, add_special_tokens=False), END]
    model.forced = {0: target}
    model.model.generation_config.max_new_tokens = len(target)
    model.front_end = type("FrontEnd", (), {"ctc": ()})()  # what `Spoken.check` asks for
    return model


def units_of(model: Recorder) -> list[Unit]:
    random = streams.random_units(len(SPOKEN), len(model.tokenizer), 1)
    return [
        Unit(token_ids=tuple(ids), spoken=spoken, silent=silent, final=number == len(SPOKEN))
        for number, (ids, (spoken, silent)) in enumerate(zip(random, SPOKEN, strict=True), start=1)
    ]


def word_delays(model: Recorder, spec: str, together: int | None = 1) -> list[int]:
    state = streams.feed(Session(model, parse_policy(spec)), units_of(model), together).state
    assert state.error is None
    begins = [i for i, t in enumerate(model.forced[0][:-1]) if not i or model.word_starts[t]]
    return [state.delays[i] for i in begins]


def test_the_rule_is_what_a_hand_computes() -> None:
    policy = parse_policy("ctc:1")
    assert policy.spec == "ctc:threshold=1,min_lag=1"
    assert parse_policy("ctc:0.5,silence=wait").spec == "ctc:threshold=0.5,min_lag=1,silence=wait"
    seen = Seen(
        units_read_B=torch.tensor([4, 4, 4]),
        units_in_view_B=torch.tensor([4, 4, 4]),
        words_written_B=torch.tensor([1, 1, 2]),
        evidence={Spoken(): torch.tensor([1.75, 2.0, 2.0], dtype=torch.float64)},
    )
    assert policy.statistic(seen).tolist() == [0.75, 1.0, 0.0]
    assert policy.writes(seen).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("spec", "delays"),
    [
        ("ctc:1", [3, 6, 6, 9, 9]),
        ("ctc:0.5", [3, 5, 6, 8, 9]),
        ("ctc:2", [6, 6, 9, 9, 9]),
        ("ctc:1,max_lag=3", [3, 4, 5, 6, 7]),
        # In the silent units 1, 4 and 7 nothing is written, whatever the bounds say.
        ("ctc:1,max_lag=3,silence=wait", [3, 5, 5, 6, 8]),
        ("wait-k:1", [2, 2, 3, 5, 5]),
        ("wait-k:1,silence=write", [1, 2, 3, 4, 5]),
        ("local-agreement:99,draft=40,max_lag=1", [2, 2, 3, 5, 5]),
        ("entropy:1e9,silence=wait", [2, 2, 3, 5, 5]),
        ("offline", [9, 9, 9, 9, 9]),
    ],
)
@pytest.mark.parametrize("together", [1, 3, None])
def test_delays(model: Recorder, spec: str, delays: list[int], together: int | None) -> None:
    assert word_delays(model, spec, together) == delays


def test_events_say_that_nobody_spoke(model: Recorder) -> None:
    session = Session(model, parse_policy("wait-k:1"))
    events = [event for unit in units_of(model) for event in session.advance(unit)]
    reads = [event.reason for event in events if isinstance(event, Read)]
    # Why nothing was written before units 2 to 6; then only the end of the target is held.
    assert [reason == Reason.READ_SILENCE for reason in reads[1:6]] == [
        silent for _, silent in SPOKEN[:5]
    ]
    writes = [event.units_read for event in events if isinstance(event, Write)]
    assert not {1, 4, 7} & {*writes}


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    model = load(save_tiny("qwen3", tmp_path))
    with pytest.raises(ValueError, match=r"policy 'ctc:.*no head of CTC \(ctc.pt\)"):
        Session(model, parse_policy("ctc:1"))
    with pytest.raises(ValueError, match="threshold of ctc must be above 0 words"):
        parse_policy("ctc:0")
    with pytest.raises(ValueError, match="silence must be wait or write, got 'no'"):
        parse_policy("wait-k:2,silence=no")
