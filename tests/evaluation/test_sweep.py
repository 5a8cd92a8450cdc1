"""Many policies in one engine: the same instances as one by one, and none that is run in vain."""

import pytest
from tests.families import OBEYING, random_model
from tests.tokenizers import build

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.evaluation.sweep import sweep
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.endogenous import Confidence, Entropy, ThresholdPolicy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, run_streams

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
    assert sorted(swept) == list(range(len(JOBS)))
    delays: list[list[list[float]]] = []
    for number, policy in enumerate(POLICIES):
        alone = run_streams(model, policy, JOBS, limits=Limits(streams=2), sampling=Sampling())
        wanted = sorted((i.index, i.prediction, i.delays, i.token_delays) for i in alone)
        log = [swept[place][number] for place in range(len(JOBS))]
        assert [(i.index, i.prediction, i.delays, i.token_delays) for i in log] == wanted
        delays.append([i.token_delays for i in log])
    assert delays[3] != delays[1] != delays[5]  # bounds matter where the rule never writes


def test_what_is_decided_alike_is_run_once(model: StreamingCausalLM) -> None:
    swept = dict(sweep(model, POLICIES, JOBS, num_lanes=1))
    for tight, loose in ((2, 0), (1, 3)):
        alone = list(run_streams(model, POLICIES[tight], JOBS, limits=Limits(streams=1)))
        other = list(run_streams(model, POLICIES[loose], JOBS, limits=Limits(streams=1)))
        alike = [a.token_delays == b.token_delays for a, b in zip(alone, other, strict=True)]
        shared = [swept[place][tight] is swept[place][loose] for place in range(len(JOBS))]
        assert shared == alike
    assert shared == [False, True, False, True, True]  # the rule never writes: by length alone


def test_a_lane_is_shared_up_to_the_first_difference(model, monkeypatch) -> None:
    fed: list[int] = []
    step = StreamingCausalLM.step

    def counted(self, cache, inputs, **how):
        fed.append(sum(each.size for each in inputs))
        return step(self, cache, inputs, **how)

    monkeypatch.setattr(StreamingCausalLM, "step", counted)
    late = [Entropy(threshold=NEVER, max_lag=lag) for lag in (3, 4, 5, None)]
    (instances,) = dict(sweep(model, late, JOBS[2:3], num_lanes=4)).values()
    together, fed[:] = sum(fed), []
    alone = [next(iter(run_streams(model, policy, JOBS[2:3]))) for policy in late]
    assert [i.token_delays for i in instances] == [i.token_delays for i in alone]
    assert together < 0.8 * sum(fed)


def test_a_source_that_cannot_be_streamed_is_named(model: StreamingCausalLM) -> None:
    jobs = [*JOBS, Job(index=77, source="ab " * 90)]
    with pytest.raises(ValueError, match="source 77: the stream has reached"):
        dict(sweep(model, POLICIES, jobs, num_lanes=3))
    assert dict(sweep(model, [], JOBS, num_lanes=3)) == {}
