"""Do SimulEval and OmniSTEval agree with this library? A table per policy; exit status 1 if not.

Run by `make simuleval` in its own environment: python tools/simuleval_agreement.py --source FILE
--target FILE --out DIR --policy SPEC ... [--lines N] [--model NAME]. Two things are compared:

1. `evaluate` writes a log; both tools score it as it is.
2. SimulEval runs our agent; both tools score its log. Ours is a run of the library alone over the
   same sentences, with the delay of each word taken when it is whole (see interop/whole_words.py).

Metrics must agree within 0.001, predictions and delays word for word. Scores of the tools are what
their commands write, rounded to 3 (SimulEval) or 4 decimals (OmniSTEval).
"""

import argparse
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.output.log import Instance

TOLERANCE = 1e-3
LATENCIES = ("AL", "LAAL", "AP", "DAL")
METRICS = ("BLEU", *LATENCIES, "YAAL", "chrF")  # SimulEval has no YAAL and no chrF
AGENT = "proactivellm.interop.simuleval_agent.StreamingAgent"
Scores = Mapping[str, float | None]


def largest_difference(columns: Sequence[Scores], metric: str) -> float:
    """The largest value of a metric less the smallest, over the tools that have it.

    None is undefined; the difference is infinite if it is defined for some of the tools only.
    """
    values = [column[metric] for column in columns if metric in column]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return float("inf") if numbers else 0.0
    return max(numbers) - min(numbers)


def print_table(title: str, columns: Mapping[str, Scores]) -> bool:
    """Prints what each tool says, by metric; returns whether they agree within TOLERANCE."""
    print(f"\n{title}")
    print(f"  {'metric':8}" + "".join(f"{name:>14}" for name in columns) + f"{'difference':>14}")
    agree = True
    for metric in METRICS:
        difference = largest_difference(list(columns.values()), metric)
        values = [*(column.get(metric) for column in columns.values()), difference]
        cells = (f"{'-' if value is None else f'{value:.4f}':>14}" for value in values)
        differs = difference > TOLERANCE
        print(f"  {metric:8}" + "".join(cells) + ("  DISAGREE" if differs else ""))
        agree = agree and not differs
    return agree


def differing_words(ours: Sequence["Instance"], theirs: Sequence["Instance"]) -> tuple[int, int]:
    """How many words of two runs differ in text or delay, and how many there are.

    Both are of the same sources in the same order.
    """
    differing = total = 0
    for pair in zip(ours, theirs, strict=True):
        mine, other = (list(zip(i.prediction.split(), i.delays, strict=True)) for i in pair)
        total += max(len(mine), len(other))
        differing += abs(len(mine) - len(other))
        differing += sum(a != b for a, b in zip(mine, other, strict=False))
    return differing, total


def _simuleval_agent(source: Path, target: Path, options: Sequence[str], folder: Path) -> Scores:
    """SimulEval runs the agent and scores it."""
    from simuleval.cli import main

    from simuleval_runs import read_tsv, run_command

    files = ["--source", str(source), "--target", str(target), "--output", str(folder)]
    metrics = ["--quality-metrics", "BLEU", "--latency-metrics", *LATENCIES, "--no-progress-bar"]
    command = ["simuleval", "--agent-class", AGENT, *options, *files, *metrics]
    run_command(main, command, folder / "simuleval.txt")
    (row,) = read_tsv(folder / "scores.tsv")
    return {name: float(value) for name, value in row.items()}


def _simuleval_score(folder: Path) -> Scores:
    """SimulEval scores the log in a folder; of that, it only prints the result."""
    from simuleval.cli import main

    from simuleval_runs import run_command

    metrics = ["--quality-metrics", "BLEU", "--latency-metrics", *LATENCIES]
    command = ["simuleval", "--score-only", "--output", str(folder), *metrics]
    run_command(main, command, folder / "simuleval.txt")
    *_, names, row = (folder / "simuleval.txt").read_text(encoding="utf-8").splitlines()
    return dict(zip(names.split(), map(float, row.split()[1:]), strict=True))


def _run_whole_words(model: "StreamingCausalLM", spec: str, logged: "Instance") -> "Instance":
    """Streams a source of `evaluate` again, live, and times each word when it is whole."""
    from proactivellm.evaluation.evaluate import find_calibration
    from proactivellm.interop.whole_words import WholeWords
    from proactivellm.policy.spec import parse_policy
    from proactivellm.session.sampling import Sampling
    from proactivellm.stream import stream_text

    policy = parse_policy(spec, find_calibration(model))
    stream = stream_text(model, policy, logged.source, sampling=Sampling())
    words, delays = WholeWords(), []
    while True:
        try:
            event = next(stream)
        except StopIteration as end:
            live: Instance = end.value
            break
        if event.kind == "WRITE":
            delays += [event.units_read] * len(words.add(event.text))
    delays += [int(live.source_length)] * len(words.finish())
    if (live.prediction, live.delays) != (logged.prediction, logged.delays):
        raise RuntimeError(f"source {logged.index}: live and `evaluate` differ under {spec}")
    return replace(logged, delays=delays)


def check(options: argparse.Namespace) -> bool:
    """Runs everything, and prints the tables; returns whether all agree."""
    from proactivellm.cli.models import load_model, quiet_imports
    from simuleval_runs import check_environment

    check_environment()
    with quiet_imports(), warnings.catch_warnings(action="ignore"):  # once, for all the forks
        import proactivellm.interop.simuleval_agent  # noqa: F401
    sides = [_first_lines(file, options.lines) for file in (options.source, options.target)]
    options.out.mkdir(parents=True, exist_ok=True)
    source, target = (options.out / name for name in ("source.txt", "target.txt"))
    for file, lines in zip((source, target), sides, strict=True):
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # First of all: a process that has computed should not be forked, as threads do not survive it.
    agents = {}
    for spec in options.policy:
        folder = options.out / "agent" / re.sub(r"[^A-Za-z0-9.=,-]+", "_", spec)
        wishes = ["--model", options.model, "--policy", spec]
        agents[spec] = folder, _simuleval_agent(source, target, wishes, folder)
    model = load_model(options.model)
    from proactivellm.evaluation.evaluate import evaluate, make_jobs

    evaluate(model, make_jobs(*sides), options.policy, options.out / "evaluate")
    verdicts = [v for spec, run in agents.items() for v in _verdicts(model, spec, *run, target)]
    return all(verdicts)


def _verdicts(
    model: "StreamingCausalLM", spec: str, folder: Path, scores: Scores, target: Path
) -> Iterator[bool]:
    """Whether our log, the agent's scores and the agent's words agree under a policy."""
    from proactivellm.metrics.score import score, score_log
    from proactivellm.output.log import read_log
    from simuleval_runs import omnisteval_score

    own = folder.parents[1] / "evaluate" / folder.name
    columns = {
        "ours": score_log(own / "instances.log"),
        "SimulEval": _simuleval_score(own),
        "OmniSTEval": omnisteval_score(own, target, METRICS),
    }
    yield print_table(f"{spec}: our log", columns)
    ours = [_run_whole_words(model, spec, instance) for instance in read_log(own / "instances.log")]
    columns = {
        "ours": score(ours),
        "ours, its log": score_log(folder / "instances.log"),
        "SimulEval": scores,
        "OmniSTEval": omnisteval_score(folder, target, METRICS),
    }
    yield print_table(f"{spec}: our agent inside SimulEval", columns)
    differing, total = differing_words(ours, read_log(folder / "instances.log"))
    print(f"  {differing} of {total} words differ from our run in text or delay")
    yield not differing


def _first_lines(file: Path, count: int | None) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()[:count]


def main() -> int:
    """Reads the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, or a new one")
    parser.add_argument("--policy", action="append", required=True)
    parser.add_argument("--model", default="tatoeba-de-en")
    parser.add_argument("--lines", type=int, help="the first N sentences only")
    agree = check(parser.parse_args())
    print("\nall agree" if agree else "\nNOT ALL AGREE")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
