"""The flags by which a command spreads its work over a Ray cluster, and what they do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from proactivellm.cli.messages import status

if TYPE_CHECKING:
    from proactivellm.evaluation.evaluate import Streamer
    from proactivellm.forward.causal_lm import StreamingCausalLM

_PANEL = "Many machines"
OnRay = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Spread the sources over workers on a Ray cluster: that of RAY_ADDRESS, else one of "
        "this machine. Needs the extra `ray`.",
        rich_help_panel=_PANEL,
    ),
]
NumWorkers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Workers of the cluster, each with the model and --lanes of its own.",
        show_default="one for each core of it, or GPU",
        rich_help_panel=_PANEL,
    ),
]


def check_cluster(ray: bool, workers: int | None, device: str) -> None:
    """ValueError if the flags do not belong together, or Ray is not installed."""
    from proactivellm.evaluation.cluster import import_ray

    if workers is not None and not ray:
        raise ValueError("--workers is of a Ray cluster: give --ray as well")
    if ray:
        if device not in ("cpu", "cuda"):
            raise ValueError(f"--device {device}: with --ray give cpu, or cuda: a GPU each")
        import_ray("evaluate --ray")


@contextmanager
def streaming_by(
    workers: int | None,
    load: "Callable[[], StreamingCausalLM]",
    model: "StreamingCausalLM",
    lanes: int,
    ray: bool,
) -> "Iterator[Streamer]":
    """What streams the sources: workers on a cluster, while the context lasts, or this process.

    Args:
        load: gives the model once more, in another process.
        model: as it was loaded here.
    """
    from proactivellm.evaluation.evaluate import stream_jobs

    if not ray:
        yield partial(stream_jobs, model, lanes)
        return
    from proactivellm.evaluation.cluster import cluster
    from proactivellm.evaluation.workers import Workers

    with cluster("evaluate --ray", logs=False) as package:
        gpus = int(model.device.type == "cuda")
        with status("loading the model in the workers"):
            on = Workers(package, load, number=workers, gpus=gpus, num_lanes=lanes)
            on.check(model)
        yield on.stream
