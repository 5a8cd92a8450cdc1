"""Do SimulEval and this library count the same latency of speech? Exit status 1 if not.

Run by `make simuleval-speech` in SimulEval's environment. SimulEval runs our agent on recordings,
and `evaluate` runs on the same, with audio in chunks of the same length. AL, LAAL, DAL and YAAL of
each recording must agree within 1 ms, and so must their means, also as OmniSTEval counts them; AP
within 0.001.

A word that is lengthened after SimulEval has got it stands in its log as two. Of such a recording,
the pieces are joined before it is compared, and what SimulEval makes of it is told beside.
"""

import argparse
import math
import multiprocessing
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proactivellm.output.log import Instance

TOLERANCES = {"AL": 1.0, "LAAL": 1.0, "DAL": 1.0, "YAAL": 1.0, "AP": 1e-3}  # ms, but of AP
THEIRS = ("AL", "LAAL", "AP", "DAL")  # of a recording, SimulEval has no YAAL
AGENT = "proactivellm.interop.speech_agent.SpeechAgent"
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Verdict:
    """A recording, as both count it."""

    ours: Scores  # by metric, of the log of `evaluate`
    theirs: Scores  # as SimulEval has it; YAAL of its log
    # Of its log with the pieces of lengthened words joined; None if there are none.
    joined: Scores | None
    same_text: bool  # whether both wrote the same

    @property
    def agrees(self) -> bool:
        """Whether text and lags are the same, words joined."""
        return self.same_text and agree(self.ours, self.joined or self.theirs)


def agree(ours: Scores, theirs: Scores) -> bool:
    """Whether two agree within the tolerances; None is undefined."""
    return all(difference(ours[m], theirs[m]) <= most for m, most in TOLERANCES.items())


def difference(one: float | None, other: float | None) -> float:
    """How far apart two numbers are; infinite if only one is defined."""
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(one - other)


def join_pieces(ours: "Instance", theirs: "Instance") -> "Instance | None":
    """The log entry of SimulEval with its words cut as ours, each with the delay of its last piece.

    None if the texts differ.
    """
    words = ours.prediction.split()
    pieces = list(zip(theirs.prediction.split(), theirs.delays, strict=True))
    delays: list[float] = []
    for word in words:
        whole = ""
        while pieces and len(whole) < len(word):
            piece, delay = pieces.pop(0)
            whole += piece
        if whole != word:
            return None
        delays.append(delay)
    if pieces:
        return None
    return replace(
        theirs,
        prediction=ours.prediction,
        prediction_length=len(words),
        delays=delays,
        elapsed=[0.0] * len(delays),
    )


def compare(ours: "Instance", theirs: "Instance", row: Mapping[str, str]) -> Verdict:
    """What both count of a recording; `row` is of SimulEval's table of recordings."""
    own = lags(theirs)
    counted = {m: float(row[m]) if row.get(m) else None for m in THEIRS}
    joined = join_pieces(ours, theirs)
    is_cut = joined is not None and len(joined.delays) < len(theirs.delays)
    return Verdict(
        lags(ours),
        {**own, **counted},
        lags(joined) if joined is not None and is_cut else None,
        joined is not None,
    )


def lags(instance: "Instance") -> Scores:
    """The metrics of one entry of a log."""
    from proactivellm.metrics.score import score

    scores = score([instance])
    return {metric: scores[metric] for metric in TOLERANCES}


def check(options: argparse.Namespace) -> bool:
    """Runs everything, and prints what was found; returns whether all agree.

    Raises:
        ValueError: there are no recordings with texts, or the model's units are no whole ms.
    """
    from proactivellm.cli.models import load_model, quiet_imports
    from simuleval_runs import check_environment, omnisteval_score, write_recordings

    check_environment()
    with quiet_imports(), warnings.catch_warnings(action="ignore"):  # once, for all the forks
        import proactivellm.interop.speech_agent  # noqa: F401
        from proactivellm.evaluation.evaluate import evaluate
        from proactivellm.tasks.jobs import read_jobs
    jobs = read_jobs(None, options.source, options.target)[: options.limit]
    if not all(job.media and job.reference for job in jobs):
        raise ValueError(f"{options.source}: recordings with texts are needed")
    paths = write_recordings(jobs, options.out / "audio")
    texts = [" ".join((job.reference or "").split()) for job in jobs]
    source, target = options.out / "source.txt", options.out / "target.txt"
    for file, lines in ((source, paths), (target, texts)):
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    jobs = read_jobs(None, str(source), str(target))
    agent, own = options.out / "agent", options.out / "evaluate"
    # First of all: a process that has computed should not be forked, as threads do not survive it.
    _run_agent(options, source, target, agent)
    model = load_model(options.model, "speech", gate=not options.no_gate)
    evaluate(model, jobs, [options.policy], own)
    (log,) = own.glob("*/instances.log")
    return _report(log, agent, omnisteval_score(agent, target, TOLERANCES))


def _run_agent(options: argparse.Namespace, source: Path, target: Path, folder: Path) -> None:
    """SimulEval runs the agent, and scores it."""
    from simuleval.cli import main

    from simuleval_runs import run_command

    model = ["--model", options.model, "--policy", options.policy]
    model += ["--no-gate"] * options.no_gate
    with multiprocessing.get_context("fork").Pool(1) as pool:
        chunk = ["--source-segment-size", str(pool.apply(_unit_ms, (options.model,)))]
    files = ["--source", str(source), "--target", str(target), "--output", str(folder)]
    metrics = ["--quality-metrics", "BLEU", "--latency-metrics", *THEIRS, "--no-progress-bar"]
    command = ["simuleval", "--agent-class", AGENT, *model, *chunk, *files, *metrics]
    run_command(main, command, folder / "simuleval.txt")


def _unit_ms(name: str) -> int:
    """The length of a model's units; what `evaluate` lets arrive together."""
    from proactivellm.modality.loading import load

    unit_ms = 1000 * load(name).front_end.unit_s
    if abs(unit_ms - round(unit_ms)) > 1e-6:
        raise ValueError(f"units of {unit_ms} ms: SimulEval sends whole ms only")
    return round(unit_ms)


def _report(log: Path, agent: Path, omnisteval: Scores) -> bool:
    """Prints how recordings and means compare; whether they agree."""
    from proactivellm.metrics.score import score
    from proactivellm.output.log import read_log
    from simuleval_runs import read_tsv

    ours, theirs = read_log(log), read_log(agent / "instances.log")
    rows = read_tsv(agent / "metrics.tsv")
    verdicts = [compare(*each) for each in zip(ours, theirs, rows, strict=True)]
    for instance, verdict in zip(ours, verdicts, strict=True):
        if not (verdict.agrees and agree(verdict.ours, verdict.theirs)):
            what = "is cut otherwise" if verdict.agrees else "differs"
            print(f"recording {instance.index} {what}: {_shown(verdict)}")
    columns: dict[str, Scores] = {
        "evaluate": score(ours),
        "its log": score(theirs),
        "SimulEval": {m: float(v) for m, v in read_tsv(agent / "scores.tsv")[0].items()},
        "OmniSTEval": omnisteval,
    }
    print(f"  {'metric':6}" + "".join(f"{name:>14}" for name in columns))
    for metric in TOLERANCES:
        values = [column.get(metric) for column in columns.values()]
        print(f"  {metric:6}" + "".join(f"{_number(value):>14}" for value in values))
    num_cut = sum(verdict.joined is not None for verdict in verdicts)
    same = sum(agree(verdict.ours, verdict.theirs) for verdict in verdicts)
    print(f"  {same} of {len(verdicts)} recordings agree within 1 ms as SimulEval counts them")
    print(
        f"  {num_cut} have a word that was lengthened later: its pieces are joined to compare them"
    )
    tools_agree = all(
        difference(columns["its log"][m], columns[tool][m]) <= most
        for m, most in TOLERANCES.items()
        for tool in ("SimulEval", "OmniSTEval")
        if m in columns[tool]
    )
    return tools_agree and all(verdict.agrees for verdict in verdicts)


def _shown(verdict: Verdict) -> str:
    if not verdict.same_text:
        return "the texts are not the same"
    ours, theirs = verdict.ours, verdict.theirs
    return ", ".join(f"{m} {_number(ours[m])} / {_number(theirs[m])}" for m in TOLERANCES)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> int:
    """Reads the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", required=True, help="a manifest, or a list of recordings")
    parser.add_argument("--target", help="texts, line by line; a manifest has them")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, or a new one")
    parser.add_argument("--policy", required=True)
    parser.add_argument("--model", default="speech-en")
    parser.add_argument("--limit", type=int, help="the first N recordings only")
    parser.add_argument("--no-gate", action="store_true", help="listen to silence too")
    agrees = check(parser.parse_args())
    print("\nall agree" if agrees else "\nNOT ALL AGREE")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
