"""The report of a study, from the logs of its arms: curves compared, tables and pictures."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from proactivellm.evaluation.results import TABLE_FILE, write_results
from proactivellm.files.replace import write_text
from proactivellm.metrics.curves import Curve, Gap, gaps, make_curve, point_gaps
from proactivellm.metrics.folders import SCORES_FILE, find_logs
from proactivellm.output.log import Instance, read_log
from proactivellm.report.markdown import markdown_table
from proactivellm.report.study_tables import Axes, CurveRow, equal_latency_table, points_table
from proactivellm.study.arms import Study
from proactivellm.study.execution import Place

REPORT_FILE = "report.md"


def write_report(study: Study, place: Place) -> list[str]:
    """Writes `report.md` beside the tables and curves of all points.

    Returns:
        What is missing: arms without results, which are left out.

    Raises:
        ValueError: no arm has results.
    """
    rows = list(_points(study, place))
    missing = [f"arm {arm}: no results yet" for arm in study.arms if not place.has_results(arm)]
    if not rows:
        raise ValueError(f"{place.out}: no arm of the study has results yet")
    write_results(rows, place.out, study.title)
    arms = [[name, arm.about] for name, arm in study.arms.items()]
    parts = [f"# {study.title}", "## Arms", markdown_table(["arm", "what differs"], arms, 2)]
    parts += ["## All points", (place.out / TABLE_FILE).read_text(encoding="utf-8")]
    if place.has_results(study.against.partition("/")[0]):
        curves = _Curves(study, place)
        axes = Axes(quality=study.quality, latency=study.latency, against=study.against)
        table = equal_latency_table(axes, study.at, curves.rows())
        parts += [f"## At equal {study.latency}", table]
        own = [curves.own_gap(row["arm"], row["request"]) for row in rows]
        parts += ["## Each policy", points_table(axes, rows, own)]
    write_text(place.out / REPORT_FILE, "\n\n".join(parts) + "\n")
    return missing


class _Curves:
    """Curves of families of policies, made once each."""

    def __init__(self, study: Study, place: Place) -> None:
        self._study = study
        self._logs = {  # arm -> request -> instances
            arm: {name: read_log(log) for name, log in find_logs(place.results(arm)).logs.items()}
            for arm in study.arms
            if place.has_results(arm)
        }
        self._made: dict[tuple[str, str], Curve | None] = {}

    def rows(self) -> Iterator[CurveRow]:
        """Each curve with its gaps to what it is compared with, at the latencies of the study."""
        for arm in self._logs:
            for family in self._study.curves:
                curve, other = self._get(arm, family), self._against(family)
                if curve is None or other is None:
                    continue
                yield CurveRow(
                    arm=arm,
                    family=family,
                    gaps=gaps(curve, other, self._study.at),
                    is_reference=curve is other,
                )

    def own_gap(self, arm: str, request: str) -> Gap | None:
        """The gap of one policy, at its own latency; None out of reach of the reference."""
        other = self._against(_family(request))
        if other is None:
            return None
        return point_gaps(self._make([self._logs[arm][request]]), other)[0]

    def _get(self, arm: str, family: str) -> Curve | None:
        """The curve, None if the arm has no such policies."""
        if (arm, family) not in self._made:
            chosen = [log for name, log in self._logs[arm].items() if _family(name) == family]
            self._made[arm, family] = self._make(chosen) if chosen else None
        return self._made[arm, family]

    def _make(self, logs: Sequence[Sequence[Instance]]) -> Curve:
        study = self._study
        return make_curve(logs, study.quality, study.latency, counting=study.counting)

    def _against(self, family: str) -> Curve | None:
        """What a family is compared with: the curve named, or the same family of the arm named."""
        arm, _, other = self._study.against.partition("/")
        return self._get(arm, other or family)


def _family(request: str) -> str:
    """The name of a policy: what stands before the colon."""
    return request.partition(":")[0]


def _points(study: Study, place: Place) -> Iterator[dict[str, Any]]:
    for arm in filter(place.has_results, study.arms):
        for row in json.loads((place.results(arm) / SCORES_FILE).read_text(encoding="utf-8")):
            yield {**row, "arm": arm, "policy": f"{arm}/{row['policy']}"}
