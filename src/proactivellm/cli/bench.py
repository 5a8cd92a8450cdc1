"""The command `bench`: what a model costs, beside what one would use without this library."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from proactivellm.backbone.bundled import DEFAULT_MODEL
from proactivellm.cli.app import app
from proactivellm.cli.bench_flags import (
    Accelerate,
    Clips,
    Deadline,
    Long,
    Loop,
    MaxSessions,
    Model,
    Out,
    Repeats,
    Seconds,
    Seed,
    Sessions,
    SourceUnits,
    Steps,
    Suites,
    TargetTokens,
    Threads,
    UnitMs,
    Units,
    WaitK,
    WindowSize,
)
from proactivellm.cli.flags import (
    Device,
    Dtype,
    KvName,
    Quantization,
    TrustRemoteCode,
    parse_kv,
)
from proactivellm.cli.messages import warn
from proactivellm.cli.models import load_model, loading
from proactivellm.cli.places import check_places
from proactivellm.cli.watching import (
    AttendChunks,
    Chunk,
    DropTokens,
    Look,
    Past,
    RecallChunks,
    VideoOptions,
)

if TYPE_CHECKING:
    from proactivellm.bench.scope import Options
    from proactivellm.bench.workload import Bench


@app.command()
def bench(
    context: typer.Context,
    out: Out,
    suites: Suites = None,
    model: Model = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    trust_remote_code: TrustRemoteCode = False,
    accelerate: Accelerate = "none",
    kv: KvName = "none",
    threads: Threads = None,
    sessions: Sessions = "1,32",
    source: SourceUnits = 60,
    target: TargetTokens = 60,
    k: WaitK = 5,
    long: Long = 400,
    repeats: Repeats = 5,
    steps: Steps = 300,
    window: WindowSize = 256,
    units: Units = "800,8000",
    deadline_ms: Deadline = 300.0,
    unit_ms: UnitMs = 400.0,
    seconds: Seconds = 5.0,
    max_sessions: MaxSessions = 1024,
    seed: Seed = 0,
    clips: Clips = None,
    loop: Loop = None,
    drop_tokens: DropTokens = None,
    look: Look = None,
    chunk: Chunk = None,
    attend_chunks: AttendChunks = None,
    recall_chunks: RecallChunks = None,
    past: Past = None,
) -> None:
    """Measure speed, latency, memory and capacity of a model.

    The folder gets bench.json and a picture. The suites alone to capacity measure in
    this process, in turn with the baseline that they are compared with.

    Example:
        proactivellm bench alone --out bench
    """
    name = model or DEFAULT_MODEL
    command = {**context.params, "out": str(out), "model": name}
    with ExitStack() as until_the_end:
        with loading(name):
            from proactivellm.bench.suites import new_report, run_suites
            from proactivellm.files.lock import locked
            from proactivellm.files.replace import write_json
            from proactivellm.report.progress import show_progress

            options = _options(command)
            until_the_end.enter_context(locked(out))
            until_the_end.enter_context(_threads(threads))
            prepared = _prepare(command, options)
        job = prepared(progress=until_the_end.enter_context(show_progress()))
        report = new_report(job, command)
        try:
            run_suites(job, report, lambda: write_json(out / "bench.json", report))
        except KeyboardInterrupt:
            warn(f"interrupted: what was measured is in {out / 'bench.json'}")
        finally:
            write_json(out / "bench.json", report)
    _show(report, out / "bench.png")
    if not report["complete"]:
        raise typer.Exit(130)


def _options(command: Mapping[str, Any]) -> "Options":
    """The sizes asked for, checked before a model is loaded, as is where results go."""
    from proactivellm.bench.scope import HERE, Options, parse_numbers
    from proactivellm.forward.graphs import Mode

    files = [Path(command["out"]) / name for name in ("bench.json", "bench.png")]
    check_places([("--out", file) for file in files], [], command["model"])
    if command["accelerate"] not in ("none", *get_args(Mode)):
        raise ValueError(
            f"accelerate {command['accelerate']!r}: choose from none, {', '.join(get_args(Mode))}"
        )
    units = parse_numbers(command["units"], "units")
    if len(units) != 2:
        raise ValueError(f"units {command['units']!r}: give two numbers, such as 800,8000")
    special: dict[str, Any] = {
        "suites": tuple(dict.fromkeys(command["suites"] or HERE)),
        "sessions": parse_numbers(command["sessions"], "sessions"),
        "units": units,
        "clips": tuple(command["clips"] or ()),
        "loop": () if command["loop"] is None else parse_numbers(command["loop"], "loop"),
        "sight": VideoOptions.of(command).sight(),
    }
    plain = {f.name: command[f.name] for f in fields(Options) if f.name not in special}
    return Options(**plain, **special)


def _prepare(command: Mapping[str, Any], options: "Options") -> "Callable[..., Bench]":
    """The model, loaded or made, with what the suites need; called with where progress goes."""
    from proactivellm.backbone.precision import parse_dtype
    from proactivellm.bench.shapes import find_shape, random_model
    from proactivellm.bench.workload import Bench, Endless

    name, device, dtype = command["model"], command["device"], command["dtype"]
    quantization = command["quantization"]
    trusts = command["trust_remote_code"]
    kv = parse_kv(command["kv"])
    shape = find_shape(name, trusts)
    served = None
    if shape is None:
        served = _served(command) if "serve" in options.suites else None
        how = {"device": device, "dtype": dtype, "quantization": quantization}
        model = text_model = load_model(name, **how, trust_remote_code=trusts)
    else:
        text_model, weights = None, parse_dtype(dtype)
        model = random_model(shape, device, weights, quantization, options.seed, trusts)
    endless = Endless(model)
    for each in (model, endless):
        each.compress_cache(kv)
    if command["accelerate"] != "none":
        for each in (model, endless):
            each.accelerate(command["accelerate"])
    return partial(Bench, model=endless, text_model=text_model, options=options, served=served)


def _served(command: Mapping[str, Any]) -> list[str]:
    """The flags of `proactivellm serve` that name the model, which it loads by itself."""
    for name in ("accelerate", "kv"):
        if command[name] != "none":
            raise ValueError(f"--{name} {command[name]}: a server has no such thing")
    names = ("model", "device", "dtype", "quantization")
    flags = [part for name in names for part in (f"--{name}", command[name])]
    return [*flags, "--trust-remote-code"] if command["trust_remote_code"] else flags


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """So many threads of torch, until the end."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show(report: Mapping[str, Any], path: Path) -> None:
    """Draws the picture, if that can be had, and prints the tables."""
    from proactivellm.report.bench_picture import draw_bench
    from proactivellm.report.bench_tables import bench_tables
    from proactivellm.report.console import print_tables

    try:
        draw_bench(report, path)
    except (ImportError, ValueError) as error:
        warn(f"warning: no picture was drawn: {error}")
    print_tables(bench_tables(report), "bench.json has all")
