"""A control for adaptive policies: the same reads and writes, at the wrong moments.

Does a policy gain because it knows *when* to read, or only because of how much it reads? Its own
schedules tell, when the reads of each source are dealt out anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from proactivellm.metrics.units import TargetUnit
from proactivellm.output.log import Instance
from proactivellm.policy.fixed import Fixed
from proactivellm.stream import Job


def shuffled_schedule(delays: Sequence[float], rng: np.random.Generator) -> tuple[int, ...]:
    """The reads before each word in random order: as many words, as many reads, from 1.

    `delays` are source units read when each word was written, non-decreasing.
    """
    reads = np.diff(np.asarray(delays), prepend=0)
    return tuple(int(units) for units in np.maximum(np.cumsum(rng.permutation(reads)), 1))


def shuffled_jobs(instances: Sequence[Instance], jobs: Sequence[Job]) -> Iterator[Job]:
    """Jobs that replay the schedules of a log, shuffled.

    Jobs whose prediction was empty read everything first.
    """
    words = TargetUnit("word")  # policies decide by word
    delays = {instance.index: words.convert(instance).delays for instance in instances}
    for job in jobs:
        rng = np.random.default_rng([0, job.index])  # whatever other jobs there are
        trace = shuffled_schedule(delays[job.index], rng) or (10**9,)
        yield replace(job, policy=Fixed(trace=trace))
