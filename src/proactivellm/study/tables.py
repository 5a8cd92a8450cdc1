"""The report of a study, from the logs of its arms: curves compared, tables and pictures."""

import json
from collections.abc import Iterator
from typing import Any

from proactivellm.evaluation.results import TABLE_FILE, write_results
from proactivellm.files.replace import write_text
from proactivellm.metrics.curves import Curve, Gap, gaps, make_points, point_gaps
from proactivellm.metrics.folders import SCORES_FILE, find_logs
from proactivellm.metrics.standing import AT_EQUAL, family_of
from proactivellm.output.log import read_log
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
        own = [curves.own_gaps(row["arm"], row["request"]) for row in rows]
        parts += ["## Each policy", points_table(axes, rows, own)]
    write_text(place.out / REPORT_FILE, "\n\n".join(parts) + "\n")
    return missing


class _Curves:
    """Curves of families of policies, made once each."""

    def __init__(self, study: Study, place: Place) -> None:
        self._study = study
        self._latencies = tuple(dict.fromkeys((study.latency, *AT_EQUAL)))
        logs = {
            (arm, name): read_log(log)
            for arm in study.arms
            if place.has_results(arm)
            for name, log in find_logs(place.results(arm)).logs.items()
        }
        wanted = (study.quality, *self._latencies)
        self._points = make_points(logs, wanted, counting=study.counting)
        self._made: dict[tuple[str, str, str], Curve | None] = {}

    def rows(self) -> Iterator[CurveRow]:
        """Each curve with its gaps to what it is compared with, at the latencies of the study."""
        latency = self._study.latency
        for arm in dict.fromkeys(arm for arm, _ in self._points.scores):
            for family in self._study.curves:
                curve, other = self._get(arm, family, latency), self._against(family, latency)
                if curve is None or other is None:
                    continue
                yield CurveRow(
                    arm=arm,
                    family=family,
                    gaps=gaps(curve, other, self._study.at),
                    is_reference=curve is other,
                )

    def own_gaps(self, arm: str, request: str) -> dict[str, Gap | None]:
        """The gaps of one policy at its own latencies; None out of reach of the reference."""
        found: dict[str, Gap | None] = dict.fromkeys(self._latencies)
        for latency in self._latencies:
            if other := self._against(family_of(request), latency):
                own = self._points.curve([(arm, request)], self._study.quality, latency)
                (found[latency],) = point_gaps(own, other)
        return found

    def _get(self, arm: str, family: str, latency: str) -> Curve | None:
        """The curve, None if the arm has no such policies."""
        key = arm, family, latency
        if key not in self._made:
            of_arm = [name for name in self._points.scores if name[0] == arm]
            chosen = [name for name in of_arm if family_of(name[1]) == family]
            quality = self._study.quality
            self._made[key] = self._points.curve(chosen, quality, latency) if chosen else None
        return self._made[key]

    def _against(self, family: str, latency: str) -> Curve | None:
        """What a family is compared with: the curve named, or the same family of the arm named."""
        arm, _, other = self._study.against.partition("/")
        return self._get(arm, other or family, latency)


def _points(study: Study, place: Place) -> Iterator[dict[str, Any]]:
    for arm in filter(place.has_results, study.arms):
        for row in json.loads((place.results(arm) / SCORES_FILE).read_text(encoding="utf-8")):
            yield {**row, "arm": arm, "policy": f"{arm}/{row['policy']}"}
