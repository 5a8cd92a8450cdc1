"""Latency metrics of one instance: lists of numbers in, one number out, None where undefined.

Legend: d_i = delay, source read when target word i (from 1) was written; |X| = source length;
|Y| = words written; |Y*| = reference words, |Y| where the reference length is None. Delays are
source units, or ms if the source length is in ms (computation-aware). Of tokens: g[t] = source
units visible when token t was predicted, M = source units in the stream, N = tokens.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Beyond this difference of the two shares, in points, a policy counts as degenerate (OmniSTEval).
_DEGENERATE_POINTS = 20.0


class Degeneracy(NamedTuple):
    """The share of words written before the end, beside what the mean lag lets expect."""

    swf: float  # simultaneous words, in % of all words: those written before the source ended
    # The share that YAAL lets expect, in % of the source; None if no instance has a YAAL.
    efsw: float | None
    # Whether the two differ by more than 20 points: most of the output comes after the source has
    # ended, and a few early words make the mean lag look small.
    degenerate: bool


def average_proportion(
    delays: Sequence[float], source_length: float, reference_length: int | None = None
) -> float | None:
    """AP (Cho and Esipova 2016): `sum_i d_i / (|X| |Y*|)`, the mean share of the source read.

    Over 1 if more is written than wanted; None if nothing was written or a length is 0.
    """
    target_length = len(delays) if reference_length is None else reference_length
    if not delays or not source_length or not target_length:
        return None
    return sum(delays) / (source_length * target_length)


def average_lagging(
    delays: Sequence[float], source_length: float, reference_length: int | None = None
) -> float | None:
    """AL (STACL, Ma et al. 2019): `1/tau sum_{i<=tau} [d_i - (i-1) |X|/|Y*|]`.

    tau is the first word with d_i >= |X|, or else the last word. If that is the first word (the
    policy is offline, or the clock counts computing) the value is d_1, as in SimulEval. In the unit
    of the delays; None if nothing was written or a length is 0.
    """
    target_length = len(delays) if reference_length is None else reference_length
    return _lagging(delays, source_length, target_length)


def length_adaptive_average_lagging(
    delays: Sequence[float], source_length: float, reference_length: int | None = None
) -> float | None:
    """LAAL (Papi et al. 2022): AL with max(|Y|, |Y*|), so that writing too much gains nothing.

    In the unit of the delays; None if nothing was written or |X| is 0.
    """
    return _lagging(delays, source_length, max(len(delays), reference_length or 0))


def _lagging(delays: Sequence[float], source_length: float, target_length: int) -> float | None:
    if not delays or not source_length or not target_length:
        return None
    pace = source_length / target_length
    total, tau = 0.0, 0
    for i, delay in enumerate(delays):
        total += delay - i * pace
        tau = i + 1
        if delay >= source_length:
            break
    return total / tau


def differentiable_average_lagging(delays: Sequence[float], source_length: float) -> float | None:
    """DAL (Arivazhagan et al. 2019): mean lag where each word costs at least |X|/|Y| of time.

    `d'_1 = d_1`, `d'_i = max(d_i, d'_{i-1} + |X|/|Y|)`, `1/|Y| sum_i [d'_i - (i-1) |X|/|Y|]`, over
    all words. In the unit of the delays; None if nothing was written or |X| is 0.
    """
    if not delays or not source_length:
        return None
    pace = source_length / len(delays)
    paced, total = float(delays[0]), 0.0
    for i, delay in enumerate(delays):
        if i:
            paced = max(delay, paced + pace)
        total += paced - i * pace
    return total / len(delays)


def yaal(
    delays: Sequence[float],
    source_length: float,
    reference_length: int | None = None,
    end: float | None = None,
) -> float | None:
    """YAAL (Polak et al. 2025, arXiv 2509.17349): LAAL without words after the end.

    `1/tau sum_{i<=tau} [d_i - (i-1) |X|/max(|Y|, |Y*|)]`, tau = the last word before the first one
    with d_i >= the end. In the unit of the delays; None if no word was written before the end.

    Args:
        end: None takes |X|, the short form; in the long form, LongYAAL, X is a segment of a
            recording, and the end is that of the recording, counted from the start of X.
    """
    end = source_length if end is None else end
    if not delays or delays[0] >= end:
        return None
    pace = source_length / max(len(delays), reference_length or 0)
    total, tau = 0.0, 0
    for i, delay in enumerate(delays):
        if delay >= end:
            break
        total += delay - i * pace
        tau = i + 1
    return total / tau


def read_coverage(schedule: Sequence[float], source_length: float) -> float | None:
    """RCO (ProactiveLLM, arXiv 2606.00523): the mean of g[t]/M over all target tokens.

    A share in 0..1 (1 = offline); None if there are no tokens or M is 0.
    """
    if not schedule or not source_length:
        return None
    return sum(schedule) / (len(schedule) * source_length)


def average_information_lag(schedule: Sequence[float], source_length: float) -> float | None:
    """AIL (ProactiveLLM, arXiv 2606.00523): mean of g[t] - t M/N, t = 1..N, over all tokens.

    Source units read beyond an even spread, negative if fewer; None if there are no tokens or M is
    0.
    """
    if not schedule or not source_length:
        return None
    pace = source_length / len(schedule)
    return sum(units - t * pace for t, units in enumerate(schedule, start=1)) / len(schedule)


def degeneracy(
    instances: Iterable[tuple[Sequence[float], float, int | None]],
) -> Degeneracy | None:
    """Whether a policy hides late output behind a few early words (Polak et al. 2025; OmniSTEval).

    SWF = 100 * words with d < |X| / all words; EFSW = 100 * sum max(0, |X| - YAAL) / sum |X| over
    the instances that have a YAAL; degenerate if they differ by more than 20 points. None if
    nothing was written.

    Args:
        instances: delays, source length and reference length (None: that of the prediction) of
            each instance of a corpus.
    """
    words, early_words, expected, sources = 0, 0, 0.0, 0.0
    for delays, source_length, reference_length in instances:
        words += len(delays)
        early_words += sum(delay < source_length for delay in delays)
        lag = yaal(delays, source_length, reference_length)
        if lag is not None:
            expected += max(0.0, source_length - lag)
            sources += source_length
    if not words:
        return None
    swf = 100.0 * early_words / words
    if not sources:  # an offline policy: late, but it hides nothing
        return Degeneracy(swf, None, False)
    efsw = 100.0 * expected / sources
    return Degeneracy(swf, efsw, abs(efsw - swf) > _DEGENERATE_POINTS)
