"""What Prometheus is told: sessions, turns, lag, the work of engines; no content."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from proactivellm.session.events import Ending
from proactivellm.stream import StreamEvent

if TYPE_CHECKING:
    from proactivellm.serve.models import Served
    from proactivellm.serve.sessions import Sessions

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_NAME = "proactivellm"


class Metrics:
    """Counters and histograms of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._lag = self._seconds("lag", "From when a unit had arrived to text written of it")
        self._first = self._seconds("first_text", "From the first piece of a source to its text")
        self._wait = self._seconds("lane_wait", "That turns waited for a lane")
        self._turns = self._counter("turns", "Turns that are over", "model", "ending")
        self._written = self._counter("deltas", "Pieces of text written", "model")
        self._thoughts = self._counter("thoughts", "Thoughts that are closed", "model")
        self._thought = self._counter("thought_tokens", "Tokens of thoughts", "model")
        self._restarts = self._counter("engine_restarts", "Engines that died", "model")
        self._refused = self._counter("refusals", "What clients were refused", "code")

    def event(self, model: str, event: StreamEvent) -> None:
        """Something happened in a turn."""
        if event.kind == "WRITE":
            self._written.labels(model).inc()
            self._lag.labels(model).observe(max(0.0, event.lag_s or 0.0))
        elif event.kind == "THINK":
            self._thoughts.labels(model).inc(event.closes)

    def first_text(self, model: str, elapsed_s: float) -> None:
        """A turn has its first text."""
        self._first.labels(model).observe(elapsed_s)

    def turn(self, model: str, ending: Ending | None, thought_tokens: int = 0) -> None:
        """A turn is over."""
        self._turns.labels(model, "error" if ending is None else ending.value).inc()
        self._thought.labels(model).inc(thought_tokens)

    def waited(self, model: str, seconds: float) -> None:
        """A turn has a lane."""
        self._wait.labels(model).observe(seconds)

    def restarted(self, model: str) -> None:
        """An engine took the place of one that died."""
        self._restarts.labels(model).inc()

    def refused(self, code: str) -> None:
        """A client was told an error."""
        self._refused.labels(code).inc()

    def watch(self, models: "Iterable[Served]", sessions: "Sessions") -> None:
        """Tell also of these, as they are when it is asked."""
        self.registry.register(_Now(models, sessions))

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"{_NAME}_{name}", what, labels, registry=self.registry)

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(
            f"{_NAME}_{name}_seconds", what, ("model",), registry=self.registry, buckets=_SECONDS
        )


def merged(texts: Mapping[str, str]) -> bytes:
    """What several servers tell, as one text: each sample has the label `replica`.

    Args:
        texts: of each server, in Prometheus' text format, by its name.
    """
    families: dict[str, Metric] = {}
    for replica, text in texts.items():
        for family in text_string_to_metric_families(text):
            kind = Metric(family.name, family.documentation, family.type)
            families.setdefault(family.name, kind).samples += [
                sample._replace(labels={**sample.labels, "replica": replica})
                for sample in family.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Told(families.values()))
    return generate_latest(registry)


class _Told(Collector):
    """What others have collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        yield from self._families


class _Now(Collector):
    """Read when it is asked for."""

    def __init__(self, models: "Iterable[Served]", sessions: "Sessions") -> None:
        self._models, self._sessions = models, sessions

    def collect(self) -> Iterator[Metric]:
        """The state of sessions and engines."""
        yield GaugeMetricFamily(
            f"{_NAME}_sessions", "Sessions that are open", value=len(self._sessions)
        )
        kinds = {
            "turns_active": "Turns that have a lane",
            "turns_waiting": "Turns that wait for a lane",
        }
        gauges = {
            name: GaugeMetricFamily(f"{_NAME}_{name}", what, labels=["model"])
            for name, what in kinds.items()
        }
        steps = CounterMetricFamily(f"{_NAME}_engine_steps", "Forward passes", labels=["model"])
        tokens = CounterMetricFamily(f"{_NAME}_engine_tokens", "Tokens in them", labels=["model"])
        for served in self._models:
            gauges["turns_active"].add_metric([served.name], served.active)
            gauges["turns_waiting"].add_metric([served.name], served.waiting)
            steps.add_metric([served.name], served.engine.forwards)
            tokens.add_metric([served.name], served.engine.tokens)
        yield from (*gauges.values(), steps, tokens)
