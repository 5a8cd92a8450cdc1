"""From a model and sizes to a report: the suites one after the other, kept as far as they came."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from proactivellm import __version__
from proactivellm.bench.alone import run_alone
from proactivellm.bench.capacity import run_capacity
from proactivellm.bench.endless import run_window
from proactivellm.bench.measure import machine_facts, model_facts
from proactivellm.bench.serving import run_serving
from proactivellm.bench.sessions import run_sessions
from proactivellm.bench.watching import run_video
from proactivellm.bench.workload import Bench

RUNS: Mapping[str, Callable[[Bench, dict[str, Any]], None]] = {
    "alone": run_alone,
    "sessions": run_sessions,
    "window": run_window,
    "capacity": run_capacity,
    "serve": run_serving,
    "video": run_video,
}


def new_report(bench: Bench, command: Mapping[str, Any]) -> dict[str, Any]:
    """A report without results: what was asked for, of which model, on which machine."""
    return {
        "proactivellm": __version__,
        "command": dict(command),
        "machine": machine_facts(bench.model.device),
        "model": model_facts(bench.model),
        "complete": False,
        "suites": {},
    }


def run_suites(bench: Bench, report: dict[str, Any], keep: Callable[[], None]) -> None:
    """Runs the suites that the options name, in a report from `new_report`.

    The report is filled as results come, so that it holds them whenever this ends; `keep` is called
    when a suite is done.
    """
    for suite in bench.options.suites:
        result: dict[str, Any] = {}
        report["suites"][suite] = result
        if bench.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.model.device)
        RUNS[suite](bench, result)
        keep()
    report["complete"] = True
