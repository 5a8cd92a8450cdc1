"""The curves of a study on one of its sets: families of policies, compared seed by seed."""

from collections.abc import Iterator

import numpy as np

from proactivellm.metrics.curves import Curve, make_points
from proactivellm.metrics.folders import find_logs
from proactivellm.metrics.seeds import Pair, SeedGap, seed_gap
from proactivellm.metrics.standing import AT_EQUAL, family_of
from proactivellm.output.log import read_log
from proactivellm.report.study_tables import CurveRow
from proactivellm.study.arms import Run, Study
from proactivellm.study.place import Place


class Curves:
    """Curves of families of policies, made once each."""

    def __init__(self, study: Study, place: Place, data: str) -> None:
        self._study = study
        self.latencies = tuple(dict.fromkeys((study.latency, *AT_EQUAL)))
        logs = {
            (run, name): read_log(log)
            for arm in study.arms
            for run in study.runs(arm)
            if place.has_results(run, data)
            for name, log in find_logs(place.results(run, data)).logs.items()
        }
        wanted = (study.quality, *self.latencies)
        self._points = make_points(logs, wanted, counting=study.counting)
        self._made: dict[tuple[Run, str, str], Curve | None] = {}

    def rows(self, against: str) -> Iterator[CurveRow]:
        """Each curve with its gaps to what it is compared with, at the latencies of the study."""
        latency = self._study.latency
        for arm in dict.fromkeys(run.arm for run, _ in self._points.scores):
            for family in self._study.curves:
                pairs = [
                    Pair(first, second, self._ceiling(run, latency))
                    for run, other in self._paired(arm, against)
                    if (first := self._get(run, family, latency))
                    and (second := self._against(other, against, family, latency))
                ]
                if pairs:
                    num_rows = len(pairs[0].first.latency)
                    levels = [[np.full(num_rows, x)] * len(pairs) for x in self._study.at]
                    yield CurveRow(
                        arm=arm,
                        family=family,
                        gaps=[seed_gap(pairs, level) for level in levels],
                        is_reference=all(pair.first is pair.second for pair in pairs),
                    )

    def own_gaps(self, arm: str, request: str, against: str) -> dict[str, SeedGap | None]:
        """The gaps of one policy at its own latencies; None out of reach of the reference."""
        found: dict[str, SeedGap | None] = {}
        for latency in self.latencies:
            pairs = [
                Pair(own, second, self._ceiling(run, latency))
                for run, other in self._paired(arm, against)
                if (run, request) in self._points.scores
                and (second := self._against(other, against, family_of(request), latency))
                and (own := self._curve([(run, request)], latency))
            ]
            found[latency] = seed_gap(pairs, [pair.first.latency[:, 0] for pair in pairs])
        return found

    def _paired(self, arm: str, against: str) -> list[tuple[Run, Run]]:
        """The runs of an arm, each with that of the reference which has the same seed."""
        study, other = self._study, against.partition("/")[0]
        pairs = ((study.run(arm, seed), study.run(other, seed)) for seed in study.each_seed)
        return list(dict.fromkeys(pairs))

    def _against(self, run: Run, against: str, family: str, latency: str) -> Curve | None:
        """What a family is compared with: the curve named, or the same family of the arm named."""
        return self._get(run, against.partition("/")[2] or family, latency)

    def _ceiling(self, run: Run, latency: str) -> Curve | None:
        """The ceiling on the model of a run: its own policies, or those of the run it borrows."""
        if self._study.ceiling is None:
            return None
        runs = dict.fromkeys((run, self._study.trained(run)))
        found = (self._get(each, self._study.ceiling, latency) for each in runs)
        return next(filter(None, found), None)

    def _get(self, run: Run, family: str, latency: str) -> Curve | None:
        """The curve, None if the run has no such policies."""
        key = run, family, latency
        if key not in self._made:
            of_run = [name for name in self._points.scores if name[0] == run]
            self._made[key] = self._curve([n for n in of_run if family_of(n[1]) == family], latency)
        return self._made[key]

    def _curve(self, names: list[tuple[Run, str]], latency: str) -> Curve | None:
        scores, quality = self._points.scores, self._study.quality
        names = [name for name in names if {quality, latency} <= scores[name].keys()]
        return self._points.curve(names, quality, latency) if names else None
