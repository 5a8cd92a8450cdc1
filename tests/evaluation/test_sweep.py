"""Many policies in one engine: the same instances as one by one, and none that is run in vain."""

import pytest
from tests.families import OBEYING, random_model
from tests.tokenizers import build

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.evaluation.sweep import sweep
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.endogenous import Confidence, Entropy, ThresholdPolicy
from proactivellm.policy.reason import Reason
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, ended_streams, run_streams

SOURCES = ["ab cd ef ab", "cd", "ef ab ab cd ab ef", "", "ab ab"]
JOBS = [Job(index=10 + i, source=source) for i, source in enumerate(SOURCES)]
ALWAYS, NEVER = 100.0, 1e-9  # thresholds of entropy
POLICIES: list[ThresholdPolicy] = [
    Entropy(threshold=ALWAYS, min_lag=2),
    Entropy(threshold=NEVER, max_lag=3),
    Entropy(threshold=ALWAYS, min_lag=2, max_lag=3),
    Entropy(threshold=NEVER),
    Confidence(threshold=0.5, max_lag=2),
    Entropy(threshold=NEVER, max_lag=2),
]


@pytest.fixture(scope="module")
def model() -> StreamingCausalLM:
    torch_model = random_model("gpt2", OBEYING["gpt2"])
    torch_model.generation_config.max_new_tokens = 8  # a random model ends no target by itself
    return StreamingCausalLM(torch_model, build("byte_level"), StreamSettings())


def test_instances_are_those_of_each_policy_alone(model: StreamingCausalLM) -> None:
    swept = dict(sweep(model, POLICIES, JOBS, num_lanes=3))
    assert sorted(swept) == list(range(len(POLICIES)))
    for number, policy in enumerate(POLICIES):
        alone = run_streams(model, policy, JOBS, limits=Limits(streams=2), sampling=Sampling())
        wanted = sorted((i.index, i.prediction, i.delays, i.token_delays) for i in alone)
        found = [(i.index, i.prediction, i.delays, i.token_delays) for i in swept[number]]
        assert found == wanted
    delays = [[i.token_delays for i in swept[number]] for number in (3, 1, 5)]
    assert delays[0] != delays[1] != delays[2]  # bounds matter where the rule never writes


def test_a_bound_that_forced_nothing_stands_for_looser_ones(model: StreamingCausalLM) -> None:
    swept = dict(sweep(model, POLICIES, JOBS, num_lanes=1))
    for tight, loose in ((2, 0), (1, 3)):
        alone = ended_streams(model, POLICIES[tight], JOBS, limits=Limits(streams=1))
        unforced = [Reason.WRITE_MAX_LAG not in s.transcript.reasons for _, s in alone]
        shared = [a is b for a, b in zip(swept[tight], swept[loose], strict=True)]
        assert shared == unforced
    assert shared == [False, True, False, True, True]  # the rule never writes: by length alone


def test_a_source_that_cannot_be_streamed_is_named(model: StreamingCausalLM) -> None:
    jobs = [*JOBS, Job(index=77, source="ab " * 90)]
    with pytest.raises(ValueError, match="source 77: the stream has reached"):
        dict(sweep(model, POLICIES, jobs, num_lanes=3))
    assert dict(sweep(model, [], JOBS, num_lanes=3)) == {}
