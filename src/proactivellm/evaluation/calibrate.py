"""Thresholds from dev data: every policy over a grid of thresholds and bounds, measured.

Records the policy's statistic along a rule-based path, places thresholds at its quantiles, runs
each and notes quality and latency. Attention needs heads first: those whose attention on the newest
units best tells whether the model would still change its mind.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from proactivellm.evaluation.evaluate import with_replays
from proactivellm.evaluation.heads import choose_heads
from proactivellm.evaluation.sweep import sweep
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.counting import Counting
from proactivellm.metrics.measures import check_references
from proactivellm.metrics.score import score
from proactivellm.output.log import Instance
from proactivellm.policy.attention import CALIBRATED, AttentionPolicy, Concentration
from proactivellm.policy.base import Policy
from proactivellm.policy.calibration import Calibration, CalibrationMeta, CalibrationPoint
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.evidence import Evidence, Heads, Seen
from proactivellm.policy.fixed import WaitK
from proactivellm.policy.learned import Learned
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import POLICIES, PolicySpec
from proactivellm.report.progress import Progress
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, run_streams

_RECORDED_LAG = 3  # the statistic is recorded along wait-3
_SOFT_QUANTILES = (0.03, 0.08, 0.15, 0.22, 0.3, 0.45, 0.6)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is measured for each policy: thresholds at quantiles of its statistic, and bounds."""

    quantiles: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8)
    min_lags: tuple[int, ...] = (0, 1, 2)
    max_lags: tuple[int | None, ...] = (3, 4, 5, 6, None)
    counting: Counting = Counting()


@dataclass(frozen=True, kw_only=True)
class Recorder(Policy):
    """Follows wait-k and notes what a threshold policy would have looked at."""

    name: ClassVar[str] = "recorder"
    inner: ThresholdPolicy  # supplies the statistic
    values: list[float] = field(default_factory=list)  # of every probe that was open to decision
    path: WaitK = field(default_factory=lambda: WaitK(k=_RECORDED_LAG))  # says when to probe
    # Whether nothing is written while there is source: for targets that may end early, which would
    # end on that path before they have seen much.
    holds: bool = False

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return self.inner.evidence

    @property
    def spec(self) -> str:
        return f"{self.name}({self.inner.name})"  # for messages; no spec that users can give

    @property
    def min_lag(self) -> int:
        """That of the path followed."""
        return self.path.min_lag

    @property
    def stride(self) -> float:
        """That of the path followed."""
        return self.path.stride

    @property
    def silence(self) -> str:
        """That of the policy whose statistic it is."""
        return self.inner.silence

    def settle(self, units_read: int, words_written: int) -> Reason | None:
        return None  # whether a probe is noted depends on the word of the candidate

    def decide(self, seen: Seen) -> Tensor:
        """Follows the path, and notes the statistic where it would write."""
        counters = zip(seen.units_read_B.tolist(), seen.words_written_B.tolist(), strict=True)
        codes_B = torch.tensor([int(self.path.settle(*each)) for each in counters])
        ready_B = codes_B == Reason.WRITE_RULE
        self.values.extend(self.inner.statistic(seen).cpu()[ready_B].tolist())
        return torch.full_like(codes_B, Reason.READ_RULE) if self.holds else codes_B


def calibrate(
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    policies: Sequence[str] = ("entropy", "confidence", "attention"),
    *,
    grid: Grid | None = None,
    num_lanes: int = 128,
    description: str = "dev",
    progress: Progress | None = None,
) -> Calibration:
    """Measures policies over a grid of thresholds and bounds on dev data.

    Args:
        jobs: dev sources with references.
        policies: names, optionally with fixed options (`entropy:top=20`).
        num_lanes: streams advanced by one forward.
        description: of the dev data, stored with the table.
        progress: called after every source.

    Returns:
        The table; `Calibration.save(folder)` puts it beside the model. A threshold outside a
        policy's valid range (a quantile at its very edge), or that writes nothing, gives no point.

    Raises:
        ValueError: a policy has no threshold, or references are missing or cannot be scored.
    """
    check_dev(jobs)
    jobs, grid = with_replays(jobs), grid or Grid()
    candidates: list[tuple[ThresholdPolicy, float]] = []
    chosen: dict[bool, Heads] = {}  # by whether they are judged by concentration
    prototypes = [prototype(text).bound_to(model) for text in policies]
    for kind in _with_heads(prototypes, model, jobs, chosen):
        own = _grid_of(kind, grid)
        thresholds = statistic_quantiles(model, jobs, kind, own.quantiles, num_lanes)
        candidates += _candidates(kind, thresholds, own)
    logs = _logs(model, [policy for policy, _ in candidates], jobs, num_lanes, progress)
    points = [
        CalibrationPoint.measured(policy, scores, quantile)
        for (policy, quantile), log in zip(candidates, logs, strict=True)
        for scores in [score(log, counting=grid.counting)]
        if scores["LAAL"] is not None  # something was written
    ]
    meta = CalibrationMeta(source=description, num_instances=len(jobs))
    # A table has room for one set of heads: that of the attention policy itself.
    return Calibration(meta=meta, heads=chosen.get(False), points=tuple(points))


def check_dev(jobs: Sequence[Job]) -> None:
    """Refuse (ValueError) dev data without references, or whose references cannot be scored."""
    if any(job.reference is None for job in jobs):
        raise ValueError("calibration needs references: give --target")
    check_references(jobs)


def _logs(
    model: StreamingCausalLM,
    policies: Sequence[ThresholdPolicy],
    jobs: Sequence[Job],
    num_lanes: int,
    progress: Progress | None,
) -> list[list[Instance]]:
    """The log of each policy, over the jobs in their order."""
    found: dict[int, list[Instance]] = {}
    for place, instances in sweep(model, policies, jobs, num_lanes):
        found[place] = instances
        if progress:
            progress("calibration", len(found), len(jobs))
    in_order = [found[place] for place in sorted(found)]
    return [[instances[number] for instances in in_order] for number in range(len(policies))]


def _with_heads(
    prototypes: Sequence[ThresholdPolicy],
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    chosen: dict[bool, Heads],
) -> Iterator[ThresholdPolicy]:
    """Prototypes, with chosen heads where they look at attention and name none; fills `chosen`."""
    for prototype in prototypes:
        if isinstance(prototype, AttentionPolicy) and prototype.heads is None:
            concentrated = isinstance(prototype, Concentration)
            if concentrated not in chosen:
                chosen[concentrated] = choose_heads(model, jobs, concentrated)
            change: dict[str, Any] = {"heads": chosen[concentrated]}
            prototype = replace(prototype, **change)
        yield prototype


def statistic_quantiles(
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    policy: ThresholdPolicy,
    quantiles: Sequence[float],
    num_lanes: int,
) -> dict[float, float]:
    """Thresholds by quantile (in 0..1) of a policy's statistic over dev data.

    Recorded along wait-3, or over all reading where the target may end early.
    """
    recorder = Recorder(
        inner=policy,
        path=WaitK(k=_RECORDED_LAG, stride=policy.stride),
        holds=model.settings.early_end,
    )
    for _ in run_streams(
        model, recorder, jobs, limits=Limits(streams=num_lanes), sampling=Sampling()
    ):
        pass
    if not recorder.values:
        raise ValueError("the dev data is too short to decide anything: use longer sources")
    values = torch.tensor(recorder.values, dtype=torch.float64)
    return {q: float(torch.quantile(values, q)) for q in quantiles}


def prototype(text: str) -> ThresholdPolicy:
    """A policy of that name and options (a spec without threshold), its threshold still to be set.

    Raises a ValueError if there is no such policy, or it has no threshold.
    """
    name = text.partition(":")[0].strip()
    known = {n: kind for n, kind in POLICIES.items() if issubclass(kind, ThresholdPolicy)}
    if name in POLICIES and name not in known:
        raise ValueError(f"{name} has no threshold to calibrate; choose from {', '.join(known)}")
    # A quantile stands in for the threshold, so that a threshold given as well is an error.
    spec = PolicySpec.parse(f"{text}{',' if ':' in text else ':'}quantile=0.5")
    values = {key: value for key, value in spec.values.items() if value != CALIBRATED}
    return known[spec.name](threshold=0.5, **values)


def _grid_of(policy: ThresholdPolicy, grid: Grid) -> Grid:
    """The grid of a policy: where each unit of lag makes a WRITE likelier, one of its own."""
    if not isinstance(policy, Learned) or not policy.lag_weight:
        return grid
    # That weight is a bound which gives way: a hard one besides costs quality. Most tokens are
    # acceptable along wait-3, so that low quantiles are those that tell policies apart.
    return replace(grid, quantiles=_SOFT_QUANTILES, min_lags=(0, 1), max_lags=(None,))


def _candidates(
    prototype: ThresholdPolicy, thresholds: dict[float, float], grid: Grid
) -> list[tuple[ThresholdPolicy, float]]:
    candidates = []
    for min_lag in grid.min_lags:
        for max_lag in grid.max_lags:
            for quantile, threshold in thresholds.items():
                try:
                    policy = replace(
                        prototype, threshold=threshold, min_lag=min_lag, max_lag=max_lag
                    )
                except ValueError:  # a quantile at the edge of the valid range
                    continue
                candidates.append((policy, quantile))
    return candidates
