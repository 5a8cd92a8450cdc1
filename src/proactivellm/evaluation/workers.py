"""Sources spread over the workers of a Ray cluster, each a process with the model of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers

from proactivellm import __version__
from proactivellm.evaluation.evaluate import stream_jobs
from proactivellm.evaluation.provenance import Conditions, model_inputs
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.policy.base import Policy
from proactivellm.stream import Job, Replay, StreamsFailed

Load = Callable[[], StreamingCausalLM]


class Workers:
    """Workers that stream what a process would stream alone; pass `stream` to `evaluate_by`.

    What they write is what one process writes; times in the log are those that they measured.

    Args:
        ray: the package, connected with a cluster (`cluster.cluster`).
        load: gives the model; called in each worker, on whose machine its files have to be.
        number: of workers; None = as many as the cluster has GPUs, or cores if `gpus` is 0.
        gpus: that each needs.
        num_lanes: streams that each advances by one forward.

    Raises:
        ValueError: the cluster has no room for them, or a model cannot be loaded.
    """

    def __init__(
        self, ray: Any, load: Load, *, number: int | None = None, gpus: int = 0, num_lanes: int = 16
    ) -> None:
        self._ray, self._num_lanes = ray, num_lanes
        kind = "GPU" if gpus else "CPU"
        room = int(ray.cluster_resources().get(kind, 0)) // max(gpus, 1)
        if not 1 <= (number or room) <= room:
            wish = f"{number} workers" if number else "a worker"
            raise ValueError(f"no room for {wish}: the cluster has {room} {kind}s in all")
        worker = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
        self._workers = [worker.remote(load) for _ in range(number or room)]

    def check(self, model: StreamingCausalLM) -> None:
        """ValueError if what they have loaded is not this model, with the same libraries."""
        wanted = what_runs(model)
        for found in self._asked([worker.what_runs.remote() for worker in self._workers]):
            differs = [name for name, value in wanted.items() if found.get(name) != value]
            if differs:
                raise ValueError(f"a worker has another {', '.join(differs)} than this process")

    def stream(
        self, policy: Policy, jobs: Sequence[Job], conditions: Conditions
    ) -> Iterator[Instance]:
        """Log entries in order of completion; raises what `run_streams` raises."""
        number, failed = len(self._workers), list[str]()
        # By its index, so that each takes the same recordings in for every policy.
        parts = [[job for job in jobs if job.index % number == place] for place in range(number)]
        running = [
            worker.stream.options(num_returns="streaming").remote(
                policy, part, self._num_lanes, conditions
            )
            for worker, part in zip(self._workers, parts, strict=True)
            if part
        ]
        while running:
            (ready, *_), _ = self._ray.wait(running, num_returns=1)
            try:
                told = self._asked(next(ready))
            except StopIteration:
                running.remove(ready)
                continue
            if isinstance(told, Instance):
                yield told
            else:
                failed.append(told)
        if failed:
            raise StreamsFailed("\n".join(failed))

    def _asked(self, what: Any) -> Any:
        """What a worker answers, or what it raised."""
        try:
            return self._ray.get(what)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"a worker ended: {reason}") from None


class Worker:
    """One of them, in its process."""

    def __init__(self, load: Load) -> None:
        self._model = load()
        self._replays: dict[int, Replay] = {}  # of jobs that come again, for other policies

    def what_runs(self) -> dict[str, Any]:
        """See `what_runs`."""
        return what_runs(self._model)

    def stream(
        self, policy: Policy, jobs: Sequence[Job], num_lanes: int, conditions: Conditions
    ) -> Iterator[Instance | str]:
        """Log entries as `stream_jobs` gives them, then a line for each source that failed."""
        jobs = [replace(job, replay=self._kept(job)) for job in jobs]
        try:
            yield from stream_jobs(self._model, num_lanes, policy, jobs, conditions)
        except StreamsFailed as error:
            # As a generator, since Ray sends to what is iterated: a list does not bear that.
            yield from (line for line in str(error).splitlines())

    def _kept(self, job: Job) -> Replay | None:
        if job.replay is None:
            return None
        return self._replays.setdefault(job.index, job.replay)


def what_runs(model: StreamingCausalLM) -> dict[str, Any]:
    """What may differ between machines and changes what is written, by name."""
    versions = {"proactivellm": __version__, "transformers": transformers.__version__}
    return {**versions, "torch": torch.__version__, **model_inputs(model)}
