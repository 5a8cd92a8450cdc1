"""Random samples and schedules for the tests of this room."""

import numpy as np
from tests.two_groups import sample_of, target_of

from proactivellm.core.packing import Sample
from proactivellm.core.schedule import Schedule, multinomial, offline


def random_sample(rng: np.random.Generator, units: int, tokens: int, prompt: int = 2) -> Sample:
    """A sample with units of one to three tokens and an assistant prefix of one or two."""

    def ids(count: int) -> list[int]:
        return [int(token) for token in rng.integers(3, 120, count)]

    return sample_of(
        [ids(prompt), *(ids(int(rng.integers(1, 4))) for _ in range(units))],
        ids(int(rng.integers(1, 3))),
        [*ids(tokens - 1), 2],
    )


def random_schedules(rng: np.random.Generator, sample: Sample, num_partial: int) -> list[Schedule]:
    """The full view and `num_partial` random ones."""
    length = len(target_of(sample))
    full = offline(sample.num_units, length)
    drawn = [multinomial(sample.num_units, length, rng) for _ in range(num_partial)]
    # The row that predicts the end of stream sees a unit that none before it does.
    before_end = max(1, sample.num_units - 1)
    return [full, *([*(min(u, before_end) for u in g[:-1]), sample.num_units] for g in drawn)]
