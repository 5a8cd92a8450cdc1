"""From instance logs to scores: one flat dictionary per policy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from proactivellm.metrics.bootstrap import Statistics, summarise
from proactivellm.metrics.counting import Counted, Counting, resolve
from proactivellm.metrics.evidence import answer_delays_s
from proactivellm.metrics.measures import (
    QUALITIES_OF,
    are_right,
    common_policy,
    degeneracy,
    final_token_ms,
    latency_unit,
    measure,
)
from proactivellm.metrics.misleading import measure_misleading
from proactivellm.metrics.quality import signature
from proactivellm.metrics.transcripts import NORMALISER
from proactivellm.output.log import Instance, read_log

Scores = dict[str, Any]


def score(
    instances: Sequence[Instance],
    num_bootstrap: int = 0,
    counting: Counting | None = None,
    finals: Sequence[Instance] | None = None,
) -> Scores:
    """Scores the instances of one policy.

    Args:
        num_bootstrap: resamples for the intervals; 0 leaves the intervals out.
        counting: tokens of BLEU and unit of latency; by the script of the references if left out.
        finals: a log of the same sources whose outputs are right in the end.

    Returns:
        A flat dictionary, ready for JSON, with None where a metric is undefined everywhere:
        `policy`, `num_instances`, `num_empty`: predictions without a word where one is wanted;
        `target_unit`: what lags count ("words", "characters" or "subwords of FILE"), and
        `counting_note` where the script decided for something else than words;
        `BLEU`, `chrF`, `bleu_signature`, `chrf_signature` where there are references, or, of
        answers to questions, `F1`, `EM`, or, of transcripts, `WER`, `CER` (both in %, the lower
        the better), `substitutions`, `deletions`, `insertions`, `wer_normaliser`,
        `insertions_per_min` where nothing is said;
        `AL`, `LAAL`, `YAAL`, `DAL`, `AIL`, `first_token_delay` in `latency_unit` ("source units",
        or "ms" of speech), `AP`, `RCO`, `NE`, each the mean over the instances where it is defined;
        `NE_corpus`: words taken back per word of all final texts;
        `forwards`, `tokens` (means), and in ms on the clock of `elapsed` `AL_CA_ms`, `LAAL_CA_ms`,
        `YAAL_CA_ms` (against the duration of the source), `first_token_ms` (since its begin) and
        `final_token_ms` (since its end), means, `..._p50` and `..._p90` the percentiles, as known;
        `RTF`: time of computing per time of audio, of speech; what `measure_thinking` and
        `measure_evidence` have; `by_group`: means and `num_instances` of each group of the log;
        `X_ci` of each of these X: half the width of its 95% bootstrap interval, and
        `num_bootstrap`; none of a single instance;
        `num_undefined`: how many instances each mean leaves out (an empty prediction has no lag;
        YAAL needs a word before the end of the source), metrics that leave out none omitted;
        `SWF`, `EFSW`, `degenerate`: see `latency.degeneracy`; None if nothing was written; and
        `misleading_time` (see there) and `misleading_against`, the policy of `finals`.

    Raises:
        ValueError: there are no instances or several policies; what `measure`, `resolve` refuse.
    """
    scores: Scores = {"policy": common_policy(instances), "num_instances": len(instances)}
    counted = resolve(instances, counting)
    measured = measure(instances, counted)
    if finals is not None:
        measured["misleading_time"] = measure_misleading(instances, finals, counted.unit)
    scores["num_empty"] = sum(map(_is_empty, instances))
    scores |= {"latency_unit": latency_unit(instances)} | counted.facts(instances[0].task)
    scores |= dict.fromkeys(QUALITIES_OF[instances[0].task]) | summarise(measured, num_bootstrap)
    scores |= _how_compared(measured, counted, finals) | degeneracy(instances, counted.unit)
    return scores | _percentiles(instances) | _by_group(instances, measured)


def _how_compared(
    measured: Mapping[str, Statistics], counted: Counted, finals: Sequence[Instance] | None
) -> Scores:
    """What has to be told with the scores of texts."""
    facts: Scores = {}
    if "BLEU" in measured:
        facts["bleu_signature"] = signature("BLEU", counted.tokenizer.name)
        facts["chrf_signature"] = signature("chrF")
    if "WER" in measured:
        facts["wer_normaliser"] = NORMALISER
    if finals is not None:
        facts["misleading_against"] = common_policy(finals)
    return facts


def score_log(path: str | Path, counting: Counting | None = None) -> Scores:
    """Scores an instance log (ours, SimulEval's or simulstream's) as `score` does.

    Raises a ValueError that names the file if it cannot be read or scored.
    """
    instances = read_log(path)
    try:
        return score(instances, counting=counting)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _is_empty(instance: Instance) -> bool:
    # Where nothing is said, to write nothing is right.
    wanted = instance.reference is None or any(map(str.isalnum, instance.reference))
    return wanted and not instance.prediction.strip()


def _percentiles(instances: Sequence[Instance]) -> Scores:
    """P50 and P90 of the times that somebody waits for; left out where the log tells none."""
    scores: Scores = {}
    waits: dict[str, list[float | None]] = {
        "first_token_ms": [instance.first_token_ms for instance in instances],
        "final_token_ms": [final_token_ms(instance) for instance in instances],
    }
    if any(instance.evidence_ms for instance in instances):
        waits["evidence_delay_s"] = answer_delays_s(instances, are_right(instances))
    for name, values in waits.items():
        known = [value for value in values if value is not None]
        for percent in (50, 90) if known else ():
            scores[f"{name}_p{percent}"] = float(np.percentile(known, percent))
    return scores


def _by_group(instances: Sequence[Instance], measured: Mapping[str, Statistics]) -> Scores:
    """Means of each group of instances; nothing where there is one group alone."""
    groups = np.array([instance.group for instance in instances])
    names = [*dict.fromkeys(groups.tolist())]
    if len(names) < 2:
        return {}
    means = {name: each for name, each in measured.items() if each.is_mean}
    parts = {name: groups == name for name in names}
    return {
        "by_group": {
            name or "others": {"num_instances": int(part.sum())}
            | {key: replace(each, values=each.values[part]).corpus() for key, each in means.items()}
            for name, part in parts.items()
        }
    }
