"""Requests to tell when something happens: test sets, and how well a model watched.

    python benchmarks/watch.py sets runs/watch [COUNT [SEED [BACKGROUND]]]
    python benchmarks/watch.py score runs/watch/test.json LOG...

`sets` writes {valid,test}.{src,json}: a stream a line, and the alerts that are due in each with the
units of the source up to the end of their reports. BACKGROUND has other text for the streams, one
sentence a line. Evaluate without --target: a stream in which nothing happens has no reference text.
`score` prints a row for each log:

- `precision`, `recall`: of the alerts; an alert counts if it has the words of one that was due, and
  was begun after its report;
- `lag`, `median`: words read at its first token, minus those up to the end of its report;
- `false`: alerts per 1,000 words of the source that were not due, early ones included;
- `early`: those with the right words, begun before the end of the report;
- `silent`: share of the streams without an event in which nothing was said.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from proactivellm.files.lines import read_lines
from proactivellm.output.log import Instance, read_log
from proactivellm.tasks.watch import draw_watches


def alerts_said(instance: Instance) -> list[tuple[str, float]]:
    """The sentences of an instance, each with the units read at its first word."""
    said: list[tuple[str, float]] = []
    words: list[str] = []
    begun = 0.0
    for word, delay in zip(instance.prediction.split(), instance.delays, strict=True):
        if not words:
            begun = delay
        words.append(word)
        if word.endswith("."):
            said.append((" ".join(words), begun))
            words = []
    return [*said, (" ".join(words), begun)] if words else said


def watched(
    instances: Sequence[Instance], due: Sequence[Sequence[tuple[str, int]]]
) -> dict[str, float]:
    """What a row of the table shows of one log; nan where there is nothing to count.

    Args:
        due: for each line of the sources the alerts that are due, with the units up to the end of
            their reports.

    Raises:
        ValueError: a source has no such line.
    """
    lags: list[float] = []
    said = early = expected = quiet = 0
    uneventful = [i for i in instances if i.index < len(due) and not due[i.index]]
    for instance in instances:
        if instance.index >= len(due):
            raise ValueError(f"instance {instance.index} has no line among {len(due)}")
        waiting = list(due[instance.index])
        expected += len(waiting)
        alerts = alerts_said(instance)
        said += len(alerts)
        quiet += not alerts and not waiting
        for text, begun in alerts:
            match = next((alert for alert in waiting if alert[0] == text), None)
            if match is None:
                continue
            waiting.remove(match)
            if begun < match[1]:
                early += 1
            else:
                lags.append(begun - match[1])
    nothing = float("nan")
    words = sum(instance.source_length for instance in instances)
    return {
        "streams": len(instances),
        "due": expected,
        "said": said,
        "precision": len(lags) / said if said else nothing,
        "recall": len(lags) / expected if expected else nothing,
        "lag": statistics.mean(lags or [nothing]),
        "median": statistics.median(lags or [nothing]),
        "false": 1000 * (said - len(lags)) / words if words else nothing,
        "early": early,
        "silent": quiet / len(uneventful) if uneventful else nothing,
    }


def write_sets(out: str, count: str = "300", seed: str = "0", background: str = "") -> None:
    """Writes the sets, each with as many streams."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    other = list(read_lines(background)) if background else []
    for split in ("valid", "test"):
        watches = draw_watches(int(count), int(seed), split, other)
        sources = "".join(f"{watch.source}\n" for watch in watches)
        due = [list(zip(watch.alerts, watch.evidence, strict=True)) for watch in watches]
        (folder / f"{split}.src").write_text(sources, encoding="utf-8")
        (folder / f"{split}.json").write_text(json.dumps(due), encoding="utf-8")


def print_scores(alerts: str, *logs: str) -> None:
    """Prints a Markdown table of instance logs."""
    due = json.loads(Path(alerts).read_text(encoding="utf-8"))
    for number, log in enumerate(logs):
        instances = read_log(log)
        row = watched(instances, due)
        if not number:
            print("| policy |", " | ".join(row), "|")
            print("|---|" + "---:|" * len(row))
        cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()]
        print("|", " | ".join([instances[0].policy if instances else log, *cells]), "|")


if __name__ == "__main__":
    {"sets": write_sets, "score": print_scores}[sys.argv[1]](*sys.argv[2:])
