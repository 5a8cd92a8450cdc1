"""Many policies over the same sources in one engine, without what cannot come out differently."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.reason import Reason
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, ended_streams


def sweep(
    model: StreamingCausalLM,
    policies: Sequence[ThresholdPolicy],
    jobs: Sequence[Job],
    num_lanes: int,
) -> Iterator[tuple[int, list[Instance]]]:
    """Runs every job under every policy; gives the number of each policy, with its instances.

    The policies share the lanes of one engine, which stay full until all is done. They run by
    max_lag, the smallest first: where it forced no word, a larger one changes nothing, and the
    instance counts for that as well. (Instances bear the name of the first policy.)

    Raises:
        ValueError: a source could not be streamed.
    """
    if not policies:
        return
    size, order = len(jobs), sorted(range(len(policies)), key=lambda n: _bound(policies[n]))
    waiting = list(order)
    unbounded = [replace(policy, max_lag=None) for policy in policies]
    unforced: dict[tuple[ThresholdPolicy, int], Instance] = {}  # by policy but for the bound, job
    results: list[dict[int, Instance]] = [{} for _ in policies]

    def to_run() -> Iterator[Job]:
        for number in order:
            for place, job in enumerate(jobs):
                if same := unforced.get((unbounded[number], place)):
                    results[number][place] = same
                else:
                    yield replace(job, index=size * number + place, policy=policies[number])

    def complete() -> Iterator[tuple[int, list[Instance]]]:
        while waiting and len(results[waiting[0]]) == size:
            number = waiting.pop(0)
            found, results[number] = results[number], {}
            yield number, [found[place] for place in range(size)]

    limits = Limits(streams=num_lanes)
    ended = ended_streams(model, policies[0], to_run(), limits=limits, sampling=Sampling())
    for job, stream in ended:
        number, place = divmod(job.index, size)
        if stream.error is not None:
            raise ValueError(f"source {jobs[place].index}: {stream.error}")
        instance = results[number][place] = stream.instance(jobs[place])
        if Reason.WRITE_MAX_LAG not in stream.transcript.reasons:
            unforced[unbounded[number], place] = instance
        yield from complete()
    yield from complete()


def _bound(policy: ThresholdPolicy) -> float:
    return math.inf if policy.max_lag is None else policy.max_lag
