"""The tables and curves of a study, from the logs of its arms."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proactivellm.evaluation.results import TABLE_FILE, write_results
from proactivellm.files.replace import write_text
from proactivellm.metrics.curves import Curve, Gap, gaps, make_curve, point_gaps
from proactivellm.metrics.folders import SCORES_FILE, find_logs
from proactivellm.metrics.measures import QUALITIES_OF
from proactivellm.output.log import Instance, read_log
from proactivellm.report.markdown import markdown_table
from proactivellm.report.points import LOWER_IS_BETTER, decimals_of, with_direction
from proactivellm.study.arms import Study
from proactivellm.study.execution import Place

REPORT_FILE = "report.md"
Logs = dict[str, dict[str, list[Instance]]]  # arm -> request -> instances


def write_report(study: Study, place: Place) -> list[str]:
    """Write `report.md` beside the tables and curves of all points.

    Args:
        study: the study.
        place: where its arms lie; those without results are left out, and named.

    Returns:
        What is missing: arms without results.

    Raises:
        ValueError: if no arm has results.
    """
    rows = list(_points(study, place))
    missing = [f"arm {arm}: no results yet" for arm in study.arms if not has_results(place, arm)]
    if not rows:
        raise ValueError(f"{place.out}: no arm of the study has results yet")
    write_results(rows, place.out, study.title)
    logs = _read_logs(study, place)
    parts = [f"# {study.title}", "## Arms", _arms_table(study)]
    parts += ["## All points", (place.out / TABLE_FILE).read_text(encoding="utf-8")]
    if study.against.partition("/")[0] in logs:
        curves = _Curves(study, logs)
        parts += [f"## At equal {study.latency}", equal_latency_table(study, curves)]
        parts += ["## Each policy", points_table(study, curves, rows)]
    write_text(place.out / REPORT_FILE, "\n\n".join(parts) + "\n")
    return missing


class _Curves:
    """Curves of families of policies, made once each."""

    def __init__(self, study: Study, logs: Logs) -> None:
        self.quality = quality_of(study)
        self.study, self.logs = study, logs
        self._made: dict[tuple[str, str], Curve | None] = {}

    def get(self, arm: str, family: str) -> Curve | None:
        """The curve, None if the arm has no such policies."""
        if (arm, family) not in self._made:
            chosen = [log for name, log in self.logs[arm].items() if family_of(name) == family]
            self._made[arm, family] = self.make(chosen) if chosen else None
        return self._made[arm, family]

    def make(self, logs: Sequence[Sequence[Instance]]) -> Curve:
        """The curve of these logs."""
        study = self.study
        return make_curve(logs, self.quality, study.latency, counting=study.counting)

    def against(self, family: str) -> Curve | None:
        """What a family is compared with."""
        arm, _, other = self.study.against.partition("/")
        return self.get(arm, other or family)


def equal_latency_table(study: Study, curves: "_Curves") -> str:
    """Quality of each arm's curves at the latencies of the study, and the gap to the reference.

    Args:
        study: the study.
        curves: of its arms.

    Returns:
        A Markdown table.
    """
    heads = [f"{study.latency} {value:g}" for value in study.at]
    rows = []
    for arm in curves.logs:
        for family in study.curves:
            curve, other = curves.get(arm, family), curves.against(family)
            if curve is None or other is None:
                continue
            cells = [_cell(gap, curve is other) for gap in gaps(curve, other, study.at)]
            rows.append([arm, family, *cells])
    note = (
        f"{with_direction(curves.quality)}, linear between points; in brackets the gap to "
        f"`{study.against}` with its 95 % interval (paired bootstrap over instances; one training "
        "run an arm); bold: the interval leaves out 0; -: out of reach of one of the two curves"
    )
    table = markdown_table(["arm", "policies", *heads], rows, num_texts=2)
    return f"{table}\n\n{note}"


def points_table(study: Study, curves: "_Curves", rows: Sequence[Mapping[str, Any]]) -> str:
    """Every policy against the reference at its own latency, and against its arm's offline score.

    Args:
        study: the study.
        curves: of its arms.
        rows: scores of all points.

    Returns:
        A Markdown table.
    """
    beside = "AIL" if study.latency == "RCO" else "RCO"
    heads = ["arm", "policy", study.latency, beside, curves.quality, "% of offline", "gap"]
    lines = []
    for arm in curves.logs:
        own = [row for row in rows if row["arm"] == arm]
        offline = next((r[curves.quality] for r in own if r["request"] == "offline"), None)
        for row in own:
            share = f"{100 * row[curves.quality] / offline:.1f}" if offline else "-"
            gap = _own_gap(study, curves, arm, row["request"])
            lines.append(
                [
                    arm,
                    f"`{row['request']}`",
                    _number(row.get(study.latency), decimals_of(study.latency, 3, row)),
                    _number(row.get(beside), decimals_of(beside, 3, row)),
                    f"{row[curves.quality]:.2f} ± {row.get(f'{curves.quality}_ci', 0):.2f}",
                    share,
                    "-" if gap is None else f"{gap.gap:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]",
                ]
            )
    note = (
        f"gap: {curves.quality} above `{study.against}` at equal {study.latency}, with its 95 % "
        "interval; % of offline: of the same model"
    )
    if curves.quality in LOWER_IS_BETTER:
        note += "; the lower the better, so that a gap below 0 is a gain"
    return f"{markdown_table(heads, lines, num_texts=2)}\n\n{note}"


def quality_of(study: Study) -> str:
    """The quality that a study's tables show: the main one of its task."""
    return QUALITIES_OF[study.task][0]


def family_of(request: str) -> str:
    """The name of a policy: what stands before the colon."""
    return request.partition(":")[0]


def _own_gap(study: Study, curves: "_Curves", arm: str, request: str) -> Gap | None:
    other = curves.against(family_of(request))
    if other is None:
        return None
    point = curves.make([curves.logs[arm][request]])
    return point_gaps(point, other)[0]


def _points(study: Study, place: Place) -> Iterator[dict[str, Any]]:
    for arm in study.arms:
        if has_results(place, arm):
            for row in json.loads((place.results(arm) / SCORES_FILE).read_text(encoding="utf-8")):
                yield {**row, "arm": arm, "policy": f"{arm}/{row['policy']}"}


def has_results(place: Place, arm: str) -> bool:
    """Whether an arm has been evaluated.

    Args:
        place: of the study.
        arm: its name.

    Returns:
        True once its first policy has scores.
    """
    return (place.results(arm) / SCORES_FILE).exists()


def _read_logs(study: Study, place: Place) -> Logs:
    return {
        arm: {name: read_log(log) for name, log in find_logs(place.results(arm)).logs.items()}
        for arm in study.arms
        if has_results(place, arm)
    }


def _arms_table(study: Study) -> str:
    rows = [[name, arm.about] for name, arm in study.arms.items()]
    return markdown_table(["arm", "what differs"], rows, num_texts=2)


def _cell(gap: Gap | None, is_reference: bool) -> str:
    if gap is None:
        return "-"
    if is_reference:
        return f"{gap.quality:.1f} ± {gap.interval:.1f}"
    text = f"{gap.quality:.1f} ({gap.gap:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}])"
    return f"**{text}**" if gap.low > 0 or gap.high < 0 else text


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
