"""Heads trained by reward against the head that they began with, at equal latency.

    python benchmarks/reinforced.py ../shared/data/tatoeba-en-de runs/reinforced

trains on 100 concatenations of three Tatoeba sentences (of valid, none that thresholds come from),
with the quality gate and without it, for two rewards; evaluates all heads at several thresholds on
the last 240 concatenations of test; writes table.md. What is there is not done again.
"""

import sys
from dataclasses import replace
from pathlib import Path

from tatoeba_sets import NUM_DEV
from tatoeba_sets import main as write_sets

from proactivellm.evaluation.evaluate import evaluate, make_jobs
from proactivellm.metrics.folders import folder_name
from proactivellm.metrics.score import score
from proactivellm.metrics.standing import Standing, standings
from proactivellm.modality.loading import load
from proactivellm.output.log import LOG_FILE, Instance, read_log
from proactivellm.policy.learned import Learned
from proactivellm.report.progress import show_progress
from proactivellm.rl.reinforce import PolicyPlan, PolicyReinforcement
from proactivellm.rl.run import reinforce
from proactivellm.stream import Job

MODEL = "tatoeba-de-en"
NUM_TRAIN, NUM_HELD = 100, 240
START = 0.9  # threshold that rollouts begin at
THRESHOLDS = (0.8, 0.9, 0.95, 0.975)
BASE = "learned"  # the name of the head that the others began with
_HOT = PolicyPlan(num_steps=25, latency="LAAL", learning_rate=0.01, temperature=1.0)
RUNS = {
    "gated": PolicyPlan(),
    "ungated": PolicyPlan(tolerance=None),
    "gated-laal": _HOT,
    "ungated-laal": replace(_HOT, tolerance=None),
}


def main(data: Path, out: Path) -> None:
    """Trains, evaluates, and writes the table and the curves."""
    write_sets(data, out / "sets")
    train = _jobs(out, "valid.3", slice(NUM_DEV, NUM_DEV + NUM_TRAIN))
    held = _jobs(out, "test.3", slice(-NUM_HELD, None))
    logs, curves = dict[str, list[Instance]](), dict[str, list[dict[str, float]]]()
    for name in (BASE, *RUNS):
        model = load(MODEL)
        if name != BASE:
            start = Learned(threshold=START, min_lag=0)
            run = PolicyReinforcement(model, start, train, RUNS[name])
            with show_progress() as told:
                curves[name] = reinforce(run, out / name, description="valid.3", progress=told)
            model = load(str(out / name))
        specs = [f"{Learned.name}:{threshold},min_lag=0" for threshold in THRESHOLDS]
        with show_progress() as told:
            evaluate(model, held, specs, out / "results" / name, num_lanes=60, progress=told)
        for spec in specs:
            log = read_log(out / "results" / name / folder_name(spec) / LOG_FILE)
            logs[spec.replace(Learned.name, name)] = log
    rows = standings(logs, BASE).rows
    lines = [_line(logs[row.policy], row) for row in rows]
    text = "\n".join([*_HEADER, *lines, "", *_curve_lines(curves)]) + "\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)


_HEADER = [
    "| head: threshold | LAAL | DAL | RCO | BLEU | chrF | BLEU at equal LAAL | at equal DAL |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
]


def _jobs(out: Path, name: str, part: slice) -> list[Job]:
    sides = [(out / "sets" / f"{name}.{s}").read_text(encoding="utf-8") for s in ("de", "en")]
    return make_jobs(*(side.splitlines()[part] for side in sides))


def _line(log: list[Instance], row: Standing) -> str:
    scores = score(log)
    cells = [f"{scores[n]:.{d}f}" for n, d in (("LAAL", 2), ("DAL", 2), ("RCO", 3))]
    cells += [f"{scores[n]:.1f}" for n in ("BLEU", "chrF")]
    for latency in ("LAAL", "DAL"):
        gap = row.gaps[latency]
        cells.append("-" if gap is None else f"{gap.gap:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]")
    return f"| `{row.policy}` | {' | '.join(cells)} |"


def _curve_lines(curves: dict[str, list[dict[str, float]]]) -> list[str]:
    """Means over fifths of each run."""
    names = ("reward", "quality", "latency", "passed", "writes", "kl", "gap")
    lines = [
        "| run | steps | " + " | ".join(names) + " |",
        "| --- | --- |" + " ---: |" * len(names),
    ]
    for run, curve in curves.items():
        size = max(1, len(curve) // 5)
        for at in range(0, len(curve), size):
            part = curve[at : at + size]
            means = [sum(step[name] for step in part) / len(part) for name in names[:-1]]
            cells = [f"{mean:.3f}" for mean in means] + [f"{max(s['gap'] for s in part):.1e}"]
            lines.append(f"| {run} | {at + 1}-{at + len(part)} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
