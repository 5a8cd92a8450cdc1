"""The command `show`: why the model spoke when it did, for single instances."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proactivellm.backbone.bundled import DEFAULT_MODEL
from proactivellm.cli.app import app
from proactivellm.cli.flags import Device, Dtype, Model, OnePolicy, TrustRemoteCode
from proactivellm.cli.messages import warn
from proactivellm.cli.models import (
    default_model,
    load_model,
    loading,
    tell_settings_not_applied,
)
from proactivellm.cli.places import check_places
from proactivellm.cli.policies import PolicyCommand, choose_policy
from proactivellm.cli.wishes import Wish, chosen_of, wish_from_log, wish_from_text

if TYPE_CHECKING:
    from proactivellm.decisions.trace import Trace
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.output.log import Instance

PICTURES = (".png", ".svg", ".pdf")
Recorded = Annotated[
    Path | None,
    typer.Argument(
        metavar="LOG|TRACES",
        help="A log of `evaluate` (or its folder, if it holds one policy), or what --json wrote.",
        show_default="give --source or --source-file instead",
    ),
]
Index = Annotated[
    list[int] | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Which source to show, counted from 0. Repeat the flag for more.",
        show_default="the first",
    ),
]
SourceText = Annotated[str | None, typer.Option(metavar="TEXT", help="A source to run.")]
SourceFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="A file of sources to run, one a line.")
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="Draw a picture (.png, .svg, .pdf) or a page (.html)."
    ),
]
AsJson = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write everything that was measured, as JSON."),
]


@app.command(cls=PolicyCommand)
def show(
    recorded: Recorded = None,
    source: SourceText = None,
    source_file: SourceFile = None,
    index: Index = None,
    model: Model = None,
    policy: OnePolicy = None,
    out: Picture = None,
    as_json: AsJson = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show why each word was written when it was.

    A source is run, and each decision is printed: what had been read, what was held back, and for
    what reason. A source of a log is run again, with the model and the policy that the log names,
    or with those given here.

    Example:
        proactivellm show --source "Ich habe gestern einen alten Freund getroffen."
    """
    from proactivellm.metrics.folders import find_logs

    given = [name for name in (recorded, source, source_file) if name is not None]
    if len(given) != 1:
        raise ValueError("give exactly one of LOG, --source and --source-file")
    is_traces = recorded is not None and recorded.is_file() and recorded.suffix == ".json"
    logs = [] if recorded is None or is_traces else find_logs(recorded).logs.values()
    check_places(
        [("--out", out), ("--json", as_json)],
        [
            ("--source-file", source_file),
            ("TRACES", recorded if is_traces else None),
            *(("LOG", log) for log in logs),
        ],
        model,
    )
    if recorded is not None and is_traces:
        from proactivellm.decisions.trace import read_traces

        found = {trace.index: trace for trace in read_traces(recorded)}
        traces = [found[i] for i in chosen_of(index, list(found), str(recorded))]
        _check_out(out, len(traces))
    else:
        with loading(model or (f"the model of {recorded}" if recorded else DEFAULT_MODEL)):
            if recorded is not None:
                wish = wish_from_log(recorded, index, model, policy)
            else:
                wish = wish_from_text(source, source_file, index, model, policy)
            _check_out(out, len(wish.jobs))  # before a model is loaded
            streaming = _load(wish, device, dtype, trust_remote_code)
        traces = _record(wish, streaming)
        _check_out(out, len(traces))  # of a recording there may be several
    if as_json is not None:
        from proactivellm.decisions.trace import write_traces

        write_traces(as_json, traces)
    _print(traces)
    if out is not None:
        _draw(traces, out)
    if written := [str(file) for file in (out, as_json) if file is not None]:
        warn(f"written: {', '.join(written)}")


def _check_out(out: Path | None, num_instances: int) -> None:
    if out is None or out.suffix == ".html":
        return
    if out.suffix not in PICTURES:
        raise ValueError(f"--out {out}: give a file that ends in {', '.join(PICTURES)} or .html")
    if num_instances > 1:
        raise ValueError(
            f"--out {out}: a picture holds one instance, not {num_instances}; give .html"
        )


def _load(wish: Wish, device: str, dtype: str, trust_remote_code: bool) -> "StreamingCausalLM":
    if dtype == "auto":
        dtype = wish.run.get("dtype") or dtype
    try:
        streaming = load_model(
            wish.model,
            "speech" if wish.listens else None,
            device=device,
            dtype=dtype,
            quantization=wish.run.get("quantization") or "none",
            trust_remote_code=trust_remote_code,
        )
    except ValueError as error:
        where = f"the model of {wish.log}: " if wish.log else ""
        remedy = "; name it with --model" if wish.log else ""
        raise ValueError(f"{where}{error}{remedy}") from None
    return tell_settings_not_applied(streaming)


def _record(wish: Wish, streaming: "StreamingCausalLM") -> "list[Trace]":
    """Runs what is wished for; warns where it is not what the log has."""
    from proactivellm.decisions.record import record
    from proactivellm.evaluation.default_policy import default_spec

    policy = choose_policy(streaming, wish.policy, wish.listens)
    name = wish.model or default_model("speech" if wish.listens else None)
    traces = [
        trace
        for job in wish.jobs
        for trace in record(streaming, policy, job, window=wish.window, model_name=name)
    ]
    request = default_spec(streaming, wish.listens) if wish.policy is None else wish.request
    traces = [replace(trace, request=request) for trace in traces]
    if wish.listens:  # one recording may have several
        traces = [replace(trace, index=number) for number, trace in enumerate(traces)]
    for trace, logged in zip(traces, wish.logged, strict=False):
        if not _came_out(trace, logged):
            warn(
                f"warning: instance {logged.index} came out otherwise than in the log, which has: "
                f"{logged.prediction}"
            )
    return traces


def _came_out(trace: "Trace", logged: "Instance") -> bool:
    """Whether it is as in the log; delays are not comparable where tokens are decided on."""
    by_word = len(logged.delays) == len(trace.delays)
    same = not by_word or list(logged.delays) == trace.delays
    return same and trace.prediction == logged.prediction


def _print(traces: "Sequence[Trace]") -> None:
    from rich.console import Console

    from proactivellm.report.decision_lines import terminal_view

    console = Console(highlight=False)
    for number, trace in enumerate(traces):
        console.print(*[""] * bool(number), terminal_view(trace), sep="\n")


def _draw(traces: "Sequence[Trace]", out: Path) -> None:
    from proactivellm.report.decision_page import decision_page
    from proactivellm.report.decision_picture import draw_trace

    try:
        decision_page(traces, out) if out.suffix == ".html" else draw_trace(traces[0], out)
    except ImportError as error:
        raise ValueError(str(error)) from None
