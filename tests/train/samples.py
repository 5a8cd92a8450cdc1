"""Random samples and schedules for the tests of this room."""

import numpy as np

from proactivellm.model.packing import Sample
from proactivellm.schedule import Schedule, multinomial, offline


def random_sample(rng: np.random.Generator, units: int, tokens: int, prompt: int = 2) -> Sample:
    """A sample with units of one to three tokens and an assistant prefix of one or two."""

    def ids(count: int) -> list[int]:
        return [int(token) for token in rng.integers(3, 120, count)]

    return Sample(
        source_units=[ids(prompt), *(ids(int(rng.integers(1, 4))) for _ in range(units))],
        target_head=ids(int(rng.integers(1, 3))),
        target=[*ids(tokens - 1), 2],
    )


def random_schedules(rng: np.random.Generator, sample: Sample, num_partial: int) -> list[Schedule]:
    """The full view and `num_partial` random ones."""
    length = len(sample.target)
    full = offline(sample.num_units, length)
    return [full, *(multinomial(sample.num_units, length, rng) for _ in range(num_partial))]
