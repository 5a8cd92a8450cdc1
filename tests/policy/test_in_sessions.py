"""Strides and chunks of several units, as a session keeps them."""

import pytest
from tests.laws import streams
from tests.laws.streams import END, Recorder
from tests.models import save_tiny

from proactivellm.policy.spec import parse_policy
from proactivellm.session.session import Session

NUM_UNITS = 11
WORDS = "The window of larger streets"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    model = streams.load(save_tiny("qwen3", tmp_path_factory.mktemp("qwen3")))
    assert model.model.generation_config is not None
    target = [*model.tokenizer.encode(WORDS, add_special_tokens=False), END]
    model.forced = {0: target}
    model.model.generation_config.max_new_tokens = len(target)
    return model


def word_delays(model: Recorder, spec: str, together: int | None) -> list[int]:
    """The units read before each word of the one target that the model ever writes."""
    units = streams.as_units(streams.random_units(NUM_UNITS, len(model.tokenizer), 1))
    state = streams.feed(Session(model, parse_policy(spec)), units, together).state
    begins = [i for i, t in enumerate(model.forced[0][:-1]) if not i or model.word_starts[t]]
    assert state.words == len(begins) == 5 and state.delays[-1] == NUM_UNITS
    return [state.delays[i] for i in begins]


@pytest.mark.parametrize(
    ("spec", "delays"),
    [
        ("wait-k:2", [2, 3, 4, 5, 6]),
        ("wait-k:2,stride=2", [2, 4, 6, 8, 10]),
        ("wait-k:2,stride=1.5", [2, 4, 5, 7, 8]),
        ("wait-k:6,stride=2", [6, 8, 10, 11, 11]),
        ("entropy:1e9,min_lag=0,stride=2", [1, 2, 4, 6, 8]),
        ("local-agreement:99,draft=40,max_lag=3,stride=1.5", [3, 5, 6, 8, 9]),
        # A draft is the whole target here; min_lag = 1 holds word 5 back until 5 units are read.
        ("hold-n:0,min_lag=2,stride=2", [2, 4, 6, 8, 10]),
        ("hold-n:0,draft=40,every=4", [4, 4, 4, 4, 8]),
        ("hold-n:0,draft=40,every=4,min_lag=-9", [4, 4, 4, 4, 4]),
        ("hold-n:0,every=20", [11, 11, 11, 11, 11]),
        ("hold-n:n=0,min_lag=3,every=4", [4, 4, 8, 8, 8]),
        ("local-agreement:2,draft=40,every=3", [6, 6, 6, 6, 6]),
        ("hold-n:39,draft=40,max_lag=2,every=3", [3, 3, 6, 6, 6]),
    ],
)
@pytest.mark.parametrize("together", [1, 3, None])
def test_delays(model: Recorder, spec: str, delays: list[int], together: int | None) -> None:
    assert word_delays(model, spec, together) == delays
