"""The report of a study, from the logs of its arms: curves compared, tables and pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proactivellm.evaluation.results import TABLE_FILE, write_results
from proactivellm.files.replace import write_text
from proactivellm.metrics.folders import SCORES_FILE
from proactivellm.report.markdown import markdown_table
from proactivellm.report.study_tables import Axes, PointRow, equal_latency_table, points_table
from proactivellm.study.arms import Study
from proactivellm.study.curves import Curves
from proactivellm.study.place import Place

REPORT_FILE = "report.md"

Row = Mapping[str, Any]


def missing_results(study: Study, place: Place) -> list[str]:
    """The runs of arms that have not been evaluated on all sets, and on which."""
    return [
        f"{run.name} on {data}" if data else run.name
        for arm in study.arms
        for run in study.runs(arm)
        for data in study.data
        if not place.has_results(run, data)
    ]


def write_report(study: Study, place: Place) -> list[str]:
    """Writes `report.md` beside the tables and curves of all points, of each set.

    Returns:
        What is missing: arms without results, which are left out.

    Raises:
        ValueError: no arm has results.
    """
    arms = [[name, arm.about] for name, arm in study.arms.items()]
    parts = [f"# {study.title}", "## Arms", markdown_table(["arm", "what differs"], arms, 2)]
    found = [_sections(study, place, data) for data in study.data]
    if not any(found):
        raise ValueError(f"{place.out}: no arm of the study has results yet")
    for data, sections in zip(study.data, found, strict=True):
        parts += [f"# Set: {data}"] * bool(data and sections) + sections
    write_text(place.out / REPORT_FILE, "\n\n".join(parts) + "\n")
    return [f"arm {name}: no results yet" for name in missing_results(study, place)]


def _sections(study: Study, place: Place, data: str) -> list[str]:
    """The tables of one set; none where it has no results."""
    groups = list(_groups(study, place, data))
    if not groups:
        return []
    folder = place.out / data
    folder.mkdir(exist_ok=True)
    rows = [_mean(group) for group in groups]
    write_results(rows, folder, f"{study.title}, {data}" if data else study.title)
    over = f", means of seeds {', '.join(map(str, study.seeds))}" if study.seeds else ""
    parts = [f"## All points{over}", (folder / TABLE_FILE).read_text(encoding="utf-8")]
    curves = Curves(study, place, data)
    for against in study.references:
        if not any(place.has_results(r, data) for r in study.runs(against.partition("/")[0])):
            continue
        axes = Axes(
            quality=study.quality,
            latency=study.latency,
            against=against,
            ceiling=study.ceiling,
            num_seeds=max(1, len(study.seeds)),
        )
        named = f", against {against}" if len(study.references) > 1 else ""
        table = equal_latency_table(axes, study.at, curves.rows(against))
        parts += [f"## At equal {study.latency}{named}", table]
        points = [
            PointRow(
                scores=row,
                qualities=[each[study.quality] for each in group],
                gaps=curves.own_gaps(row["arm"], row["request"], against),
            )
            for row, group in zip(rows, groups, strict=True)
        ]
        parts += [f"## Each policy{named}", points_table(axes, points)]
    return parts


def _groups(study: Study, place: Place, data: str) -> Iterator[list[Row]]:
    """The scores of each policy of each arm, a row for each seed that has it."""
    for arm in study.arms:
        found: dict[str, list[Row]] = {}
        for run in study.runs(arm):
            if place.has_results(run, data):
                file = place.results(run, data) / SCORES_FILE
                for row in json.loads(file.read_text(encoding="utf-8")):
                    # Seeds have thresholds of their own, so that only what was asked for is one.
                    name = row["policy"] if run.seed is None else row["request"]
                    found.setdefault(row["request"], []).append(
                        {**row, "arm": arm, "policy": f"{arm}/{name}"}
                    )
        yield from found.values()


def _mean(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over seeds of all that are numbers under each, intervals too."""
    mean = dict(rows[0])
    for key, value in mean.items():
        values = [each for row in rows if (each := row.get(key)) is not None]
        if len(rows) > 1 and isinstance(value, float):
            mean[key] = sum(values) / len(rows) if len(values) == len(rows) else None
    return mean
