"""Reading schedules: `g[t]` = source units visible when target step t is predicted.

The one representation of latency in the library (STACL's g, the survey's phi). Legend: M = source
units, N = target steps (words or tokens).
"""

from collections.abc import Sequence

import numpy as np

Schedule = list[int]


def wait_k(k: int, num_source: int, num_target: int) -> Schedule:
    """Wait-k (STACL, Ma et al. 2019, eq. 4): `g[t] = min(k + t, M)` for t = 0..N-1, k >= 1."""
    if k < 1:
        raise ValueError(f"wait-k needs k >= 1, got {k}")
    _check_lengths(num_source, num_target)
    return [min(k + t, num_source) for t in range(num_target)]


def offline(num_source: int, num_target: int) -> Schedule:
    """Read everything before the first write: `g[t] = M`."""
    _check_lengths(num_source, num_target)
    return [num_source] * num_target


def multinomial(
    num_source: int,
    num_target: int,
    rng: np.random.Generator,
    first_share: tuple[float, float] = (0.0, 1.0),
) -> Schedule:
    """Monotonic random masking (ProactiveLLM, L_MSLM): the reading budget is spread at random.

    `Delta ~ Multinomial(M, w)`, `g[t] = Delta_0 + ... + Delta_t`, at least one unit visible. A
    share `s ~ U(first_share)` of w lies on the first step and the rest is spread evenly, so that
    one model meets every latency from the diagonal (s = 0) to offline (s = 1).
    """
    low, high = first_share
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f"first_share must satisfy 0 <= low <= high <= 1, got {first_share}")
    _check_lengths(num_source, num_target)
    if num_target == 0:
        return []
    share = rng.uniform(low, high)
    weights = np.full(num_target, (1.0 - share) / num_target)
    weights[0] += share
    g = np.cumsum(rng.multinomial(num_source, weights / weights.sum()))
    return [int(units) for units in np.maximum(g, 1)]


def uniform(num_source: int, num_target: int, rng: np.random.Generator) -> Schedule:
    """Cut-offs drawn one by one, evenly from 1..M, and sorted: a baseline for `multinomial`."""
    _check_lengths(num_source, num_target)
    # Most draws open with few units and cross the whole source, whatever the latency wanted.
    return sorted(int(units) for units in rng.integers(1, num_source + 1, size=num_target))


def validate(g: Sequence[int], num_source: int) -> None:
    """Refuse (ValueError, naming the step) a g that decreases or has an entry outside 1..M."""
    previous = 1
    for t, units in enumerate(g):
        if not 1 <= units <= num_source:
            raise ValueError(f"schedule g[{t}] = {units} is outside 1..{num_source}")
        if units < previous:
            raise ValueError(f"schedule decreases at step {t}: {previous} -> {units}")
        previous = units


def expand(g_words: Sequence[int], word_index: Sequence[int]) -> Schedule:
    """A schedule over target words as one over target tokens, whose words are `word_index`."""
    return [g_words[word] for word in word_index]


def _check_lengths(num_source: int, num_target: int) -> None:
    if num_source < 1:
        raise ValueError(f"a schedule needs at least one source unit, got {num_source}")
    if num_target < 0:
        raise ValueError(f"the number of target steps cannot be negative, got {num_target}")
