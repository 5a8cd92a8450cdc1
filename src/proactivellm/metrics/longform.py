"""Long recordings: the words of a log are assigned to reference segments and scored by segment.

SoftSegmenter of OmniSTEval (Polak et al. 2025, arXiv 2509.17349) aligns the words of log and
references, in order, by the similarity of their characters; of a script without spaces, equal
characters. StreamLAAL has borders of its own, those of mwerSegmenter. Needs the extra `longform`
(omnisteval), and for StreamLAAL the extra `mwer`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

from proactivellm.metrics import latency
from proactivellm.metrics.bootstrap import Statistics, mean, summarise
from proactivellm.metrics.counting import Counted, Counting, resolve
from proactivellm.metrics.measures import (
    common_policy,
    measure_quality,
    measure_real_time,
)
from proactivellm.metrics.mwer import mwer_borders
from proactivellm.metrics.segments import Segment, match_recordings
from proactivellm.metrics.units import TargetUnit
from proactivellm.output.log import Instance

# The alignment keeps 16 to 40 bytes for each pair of a word written and a word of the references.
_MOST_CELLS = 40_000_000
_WORDS = TargetUnit("word")


class Resegmented(NamedTuple):
    """A segment as an instance, with the words that were given to it."""

    # `source_length` is the duration in ms, `delays` and `elapsed` are ms since the segment began,
    # less than 0 for a word that came before.
    instance: Instance
    end_ms: float  # when the last segment of the recording ends, since this one began


def resegment(
    instances: Sequence[Instance],
    segments: Sequence[Segment],
    unit: TargetUnit = _WORDS,
) -> list[Resegmented]:
    """Gives each word of the recordings to a reference segment.

    The log is of one policy, an instance per recording, of speech; the unit is words or characters.
    Segments come back by recording in the order of the log, then by start.

    Raises:
        ValueError: as `segments.match_recordings`; a recording is too long to be aligned, or
            omnisteval is not installed.
    """
    try:
        import omnisteval
    except ImportError:
        raise ValueError(
            "scores of long recordings need omnisteval, which is not installed: "
            "pip install 'proactivellm[longform]'"
        ) from None
    recordings = match_recordings([unit.convert(i) for i in instances], segments)
    # omnisteval tells segments apart by a number that is unique over all recordings.
    numbers = iter(range(len(segments)))
    wanted, written = [], []
    for whole, parts in recordings:
        numbered = list(zip(parts, numbers, strict=False))
        wanted.append(
            [
                omnisteval.Word(word, emission_cu=1000 * part.start_s, seq_id=number)
                for part, number in numbered
                for word in unit.split(part.text.lower())
            ]
        )
        _check_size(whole, len(wanted[-1]))
        times = zip(whole.units(), whole.delays, whole.elapsed, strict=True)
        written.append([omnisteval.Word(w, emission_cu=d, emission_ca=e) for w, d, e in times])
    rows = [(whole, part, parts) for whole, parts in recordings for part in parts]
    places = [_place(part, parts) for _, part, parts in rows]
    texts = [" ".join(part.text.split()) for _, part, _ in rows]
    found, _ = omnisteval.resegment(wanted, written, places, texts, char_level=unit.name == "char")
    return [
        Resegmented(_instance(index, whole, each, place), place["time_to_recording_end"])
        for index, ((whole, *_), each, place) in enumerate(zip(rows, found, places, strict=True))
    ]


def score_longform(
    instances: Sequence[Instance],
    segments: Sequence[Segment],
    num_bootstrap: int = 0,
    counting: Counting | None = None,
) -> dict[str, Any]:
    """Scores the recordings of one policy, by reference segment.

    Args:
        instances: the log of one policy, an instance per recording, of speech.
        num_bootstrap: resamples of the segments for the intervals; 0 leaves the intervals out.
        counting: tokens of BLEU and unit of latency; by the script of the segments if left out.

    Returns:
        A flat dictionary, ready for JSON: `policy`, `num_recordings`, `num_instances` (segments),
        `latency_unit`, `target_unit`, `resegmenter`; the scores of the task, see `score.score`;
        `LongYAAL` (Polak et al. 2025): YAAL of a segment, where words after its end count as long
        as the last segment of the recording has not ended;
        `LongLAAL`: LAAL of a segment, as OmniSTEval has it; `StreamLAAL` (Papi et al. 2024, arXiv
        2406.06097): the same with the borders of mwerSegmenter, if the extra `mwer` is installed.
        All are means over segments with words, ms; `LongYAAL_CA_ms`, `LongLAAL_CA_ms`,
        `StreamLAAL_CA_ms`: the same of `elapsed`, if the log has a clock;
        `RTF`, where the log tells it; `X_ci`, `num_bootstrap`, `num_undefined`: `score.score`.

    Raises:
        ValueError: as `resegment`, or several policies or tasks are there, or subwords asked for.
    """
    policy, counted = common_policy(instances), _decide(instances, segments, counting)
    parts = resegment(instances, segments, counted.unit)
    measured = measure_quality([part.instance for part in parts], counted)
    has_clock = all(instance.source_ms is not None for instance in instances)
    clocks = {"": "delays"} | ({"_CA_ms": "elapsed"} if has_clock else {})
    measured |= _lags(parts, clocks, counted.unit)
    resegmenter = f"SoftSegmenter (OmniSTEval {version('omnisteval')})"
    if find_spec("mweralign"):
        measured |= _stream_laal(instances, segments, clocks, counted.unit)
        resegmenter += f"; of StreamLAAL: mwerSegmenter (mweralign {version('mweralign')})"
    scores = {
        "policy": policy,
        "num_recordings": len(instances),
        "num_instances": len(parts),
        "latency_unit": "ms",
        **counted.facts(instances[0].task),
        "resegmenter": resegmenter,
    }
    scores |= summarise(measured, num_bootstrap)
    if (factor := measure_real_time(instances)) is not None:
        scores["RTF"] = factor.corpus()
    return scores


def _decide(
    instances: Sequence[Instance], segments: Sequence[Segment], counting: Counting | None
) -> Counted:
    """What is counted, by the script of the segments."""
    text = " ".join(segment.text for segment in segments)
    counted = resolve([replace(instance, reference=text) for instance in instances], counting)
    if counted.unit.name == "spm":
        raise ValueError("long recordings are aligned by words or characters, not by subwords")
    return counted


def _lags(
    parts: Sequence[Resegmented], clocks: Mapping[str, str], unit: TargetUnit
) -> dict[str, Statistics]:
    """LongYAAL and LongLAAL; `clocks` maps the end of their names to the field of the log."""
    result = {}
    for suffix, clock in clocks.items():
        rows = [
            (getattr(i, clock), i.source_length, unit.length(i.reference), end_ms)
            for i, end_ms in parts
        ]
        laal = [latency.length_adaptive_average_lagging(*row[:3]) for row in rows]
        result[f"LongYAAL{suffix}"] = mean([latency.yaal(*row) for row in rows])
        result[f"LongLAAL{suffix}"] = mean(laal)
    return result


def _stream_laal(
    instances: Sequence[Instance],
    segments: Sequence[Segment],
    clocks: Mapping[str, str],
    unit: TargetUnit,
) -> dict[str, Statistics]:
    # Without resegmented instances: its borders come from another segmenter.
    values: dict[str, list[float | None]] = {suffix: [] for suffix in clocks}
    for whole, parts in match_recordings([unit.convert(i) for i in instances], segments):
        texts = [" ".join(unit.split(part.text)) for part in parts]
        borders = mwer_borders(whole.units(), texts)
        for part, (first, end) in zip(parts, borders, strict=True):
            start_ms, length_ms = 1000 * part.start_s, 1000 * (part.end_s - part.start_s)
            for suffix, clock in clocks.items():
                own = [time - start_ms for time in getattr(whole, clock)[first:end]]
                lag = latency.length_adaptive_average_lagging(
                    own, length_ms, unit.length(part.text)
                )
                values[suffix].append(lag)
    return {f"StreamLAAL{suffix}": mean(lags) for suffix, lags in values.items()}


def _check_size(whole: Instance, num_words: int) -> None:
    if num_words * whole.prediction_length > _MOST_CELLS:
        raise ValueError(
            f"{whole.source!r} is too long to be aligned: {whole.prediction_length} words, "
            f"{num_words} in its segments; cut it and its segments into parts of half an hour"
        )


def _place(segment: Segment, parts: Sequence[Segment]) -> dict[str, float]:
    """Where a segment lies, in ms, as omnisteval has it."""
    return {
        "offset": 1000 * segment.start_s,
        "duration": 1000 * (segment.end_s - segment.start_s),
        "time_to_recording_end": 1000 * (max(p.end_s for p in parts) - segment.start_s),
    }


def _instance(index: int, whole: Instance, found: Any, place: Mapping[str, float]) -> Instance:
    delays = found.emission_cu or []
    return replace(
        whole,
        index=index,
        source_length=place["duration"],
        prediction=found.prediction,
        prediction_length=len(delays),
        prediction_spm=None,
        reference=found.reference,
        answers=None,
        delays=delays,
        elapsed=found.emission_ca or [],
        token_delays=delays,
        # Known of the whole recording only: a segment has no share of it.
        forwards=None,
        tokens=None,
        first_token_ms=None,
        revisions=None,
        compute_ms=None,
    )
