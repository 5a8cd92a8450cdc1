"""The models that are served: each with an engine in a thread of its own, and its policies."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from proactivellm.evaluation.default_policy import default_spec
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.output.log import TEXT
from proactivellm.policy.base import Policy
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.spec import parse_policy
from proactivellm.serve.errors import RequestError
from proactivellm.serve.metrics import Metrics
from proactivellm.serve.settings import OF_VIDEO, Settings
from proactivellm.session.limits import Limits, Sight
from proactivellm.session.thoughts import check_policy
from proactivellm.session.window import Window
from proactivellm.stream import AsyncStream, Streams, Worker

DELAYS = ("minimal", "low", "medium", "high", "xhigh")  # OpenAI's names, from early to late
# Of a model whose default policy has no calibrated lags.
_WAIT_K = {"minimal": 1, "low": 2, "medium": 3, "high": 5, "xhigh": 8}

VIDEO = "video"

_log = logging.getLogger(__name__)


class Served:
    """One model, its engine, and those who wait for a lane of it, first come, first served.

    Attributes:
        name: by which clients ask for it.
        policy: where a client names none.
        listens: whether its sources are recordings, of sound or of pictures.
        watches: whether they are of pictures.
        deepest: depth of its reasoning, at most; 0 = it does not think.
        active, waiting: turns that have a lane, and that wait for one.
        engine: that of today; another one takes its place if its thread dies.
    """

    def __init__(
        self, name: str, model: StreamingCausalLM, settings: Settings, metrics: Metrics
    ) -> None:
        self.name, self.model, self.metrics = name, model, metrics
        self.listens = model.front_end is not None
        self.watches = self.reads == VIDEO
        self.deepest = 0 if model.thinking is None else len(model.thinking.stages) + 1
        self._calibration = find_calibration(model)
        self.policy = self.parse(default_spec(model, self.listens))
        self._limits = Limits(
            streams=settings.streams,
            entries=settings.entries,
            pending=64,
            thought_tokens=settings.thought_tokens,
            sight=_sight(settings) if self.watches else None,
        )
        size = settings.window
        self._window = None if size is None else Window(source=size, target=size)
        self._queue_s = settings.queue_s
        self._lanes = asyncio.Semaphore(settings.streams)
        self.active = self.waiting = 0
        self._begin()

    @property
    def reads(self) -> str:
        """The kind of its sources: text, or a modality."""
        return self.model.front_end.kind if self.listens else TEXT

    @property
    def unit(self) -> str:
        """What a lag is counted in."""
        if self.listens:
            return f"{self.reads} unit"
        return "sentence" if self.deepest else "word"

    @property
    def delays(self) -> Mapping[str, str]:
        """The policy of each name of `DELAYS`.

        The lags of the default policy, as measured, from the smallest to the largest, in equal
        ratios; without them, wait-k.
        """
        points = [p for p in self._points() if not p.degenerate]
        if not points:
            # Of video, k says how much is seen before.
            of_video = ",stride=0.001" if self.watches and not self.deepest else ""
            return {name: f"wait-k:{k}{of_video}" for name, k in _WAIT_K.items()}
        low, high = min(p.LAAL for p in points), max(p.LAAL for p in points)
        last = len(DELAYS) - 1
        ratios = [low * (high / low) ** (place / last) for place in range(last)]
        lags = [low, *(float(f"{lag:.4g}") for lag in ratios[1:]), high]
        name = self.policy.name
        return {d: f"{name}:laal={lag}" for d, lag in zip(DELAYS, lags, strict=True)}

    def parse(self, spec: str, param: str | None = None) -> Policy:
        """The policy of a spec, as it runs on this model; RequestError if there is none."""
        try:
            policy = parse_policy(spec, self._calibration).bound_to(self.model)
            policy.check(self.model)
            if self.deepest:
                check_policy(policy, ())
        except ValueError as error:
            raise RequestError(str(error), code="invalid_policy", param=param) from None
        return policy

    async def lane(self, patience: Callable[[asyncio.Timeout], None]) -> None:
        """Wait for a lane, to be given back by `give_back`.

        Args:
            patience: is given the timeout of the waiting, by which it can be cut short.

        Raises:
            RequestError: if none is free in time.
            TimeoutError: if it was cut short.
        """
        began = asyncio.get_running_loop().time()
        self.waiting += 1
        try:
            async with asyncio.timeout(self._queue_s or None) as timeout:
                patience(timeout)
                if self._queue_s == 0 and self._lanes.locked():
                    raise TimeoutError
                await self._lanes.acquire()
        except TimeoutError:
            if asyncio.get_running_loop().time() - began < self._queue_s:
                raise
            raise RequestError(
                f"all lanes of {self.name} are in use; try again later",
                code="too_many_streams",
                type="rate_limit_exceeded",
                retry_after_s=max(1.0, self._queue_s),
            ) from None
        finally:
            self.waiting -= 1
        self.active += 1

    def give_back(self) -> None:
        """Somebody's turn is over."""
        self.active -= 1
        self._lanes.release()

    async def open(self, **options: Any) -> AsyncStream:
        """A stream, for who has a lane; options as for `Streams.open`.

        If the engine's thread has died, another one takes its place.
        """
        if self._worker.error is not None:
            error = type(self._worker.error).__name__
            _log.error("engine_restarted", extra={"model": self.name, "error": error})
            self.metrics.restarted(self.name)
            self._begin()
        return await self._worker.open(**options)

    async def close(self) -> None:
        """End the engine."""
        await self._worker.close()

    def _begin(self) -> None:
        streams = Streams(self.model, self.policy, self._limits, None, self._window)
        self.engine, self._worker = streams.engine, Worker(streams)

    def _points(self) -> list[Any]:
        if self._calibration is None or not isinstance(self.policy, ThresholdPolicy):
            return []
        return [point for point in self._calibration.points if point.policy == self.policy.name]


class Models:
    """The models of a server, by name; the first one where a client names none."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._served = {name: _load(name, settings, metrics) for name in settings.models}
        if not any(served.watches for served in self):
            for name in OF_VIDEO:
                if getattr(settings, name) is not None:
                    raise ValueError(f"{name} is for video, which none of the models watches")

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def get(self, name: str | None, param: str = "model") -> Served:
        """RequestError if it is not served."""
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            known = ", ".join(self._served)
            raise RequestError(
                f"there is no model {name[:80]!r} here; there are: {known}",
                code="model_not_found",
                param=param,
            )
        return self._served[name]

    async def close(self) -> None:
        """End all engines."""
        await asyncio.gather(*(served.close() for served in self))


def _sight(settings: Settings) -> Sight | None:
    if settings.attend_chunks is None:
        return None
    recall = settings.recall_chunks or 0
    return Sight(
        units=settings.attend_chunks, recall=recall, beyond="host" if recall else "dropped"
    )


def _load(name: str, settings: Settings, metrics: Metrics) -> Served:
    model = load(
        name,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        trust_remote_code=settings.trust_remote_code,
    )
    try:
        if model.front_end is not None and model.front_end.kind == VIDEO:
            model.front_end.watch(settings.chunk, settings.drop_tokens)
        return Served(name, model, settings, metrics)
    except RequestError as error:
        raise ValueError(f"{name}: no default policy: {error.message}") from None
