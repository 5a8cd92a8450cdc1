"""Running SimulEval and OmniSTEval in their environment, and reading what they write."""

import csv
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proactivellm.stream import Job

TIMEOUT_S = 3600.0  # of one command: SimulEval waits for ever for an agent that never finishes


def check_environment() -> None:
    """Checks that SimulEval and OmniSTEval get what they pin, whatever .venv beside them holds.

    Raises:
        RuntimeError: they do not.
    """
    from packaging.requirements import Requirement

    for line in [*(requires("simuleval") or ()), *(requires("omnisteval") or ())]:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            found = version(wanted.name)
            if not wanted.specifier.contains(found):
                raise RuntimeError(f"{wanted} is needed, {found} is found: make simuleval")


def run_command(main: Callable[[], Any], arguments: Sequence[str], log: Path) -> None:
    """Runs a command in a fork, as imports take longer than the rest; its output goes to `log`.

    `arguments` begin with its name. Raises a RuntimeError if it failed, or did not end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_become, args=(main, list(arguments), log))
    child.start()
    child.join(TIMEOUT_S)
    if child.is_alive():
        child.kill()
        raise RuntimeError(f"{' '.join(arguments)}: not done after {TIMEOUT_S:g} s; see {log}")
    if child.exitcode:
        raise RuntimeError(f"{' '.join(arguments)}: failed\n{log.read_text(encoding='utf-8')}")


def _become(main: Callable[[], Any], arguments: list[str], log: Path) -> None:
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = arguments
    sys.exit(main())


def omnisteval_score(folder: Path, target: Path, metrics: Iterable[str]) -> dict[str, float | None]:
    """OmniSTEval scores the log in a folder: by metric, None where it is undefined.

    `target` has the references, line by line.
    """
    from omnisteval.cli import main

    out = folder / "omnisteval"
    files = ["--hypothesis_file", str(folder / "instances.log"), "--output_folder", str(out)]
    options = ["--ref_sentences_file", str(target), "--word_level"]
    run_command(main, ["omnisteval", "shortform", *files, *options], folder / "omnisteval.txt")
    values = {
        row["metric"].removesuffix(" (CU)"): row["value"] for row in read_tsv(out / "scores.tsv")
    }
    return {m: None if values[m] == "nan" else float(values[m]) for m in metrics}


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows of a tab-separated table with a heading."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write_recordings(jobs: Sequence["Job"], folder: Path) -> list[str]:
    """Writes recordings as SimulEval reads them, a file each, and returns the paths.

    Samples are as we read them.
    """
    import numpy as np
    import soundfile

    from proactivellm.modality.speech.joined import recorded_blocks

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for job in jobs:
        rate, blocks = recorded_blocks(job.media, 1.0)
        path = folder.resolve() / f"{job.index}.wav"
        soundfile.write(path, np.concatenate(list(blocks)), rate, subtype="FLOAT")
        paths.append(str(path))
    return paths
