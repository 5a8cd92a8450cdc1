"""A benchmark of a tiny model with drawn weights, in seconds."""

from typing import Any

from tests.models import tiny_config

from proactivellm.bench.scope import Options
from proactivellm.bench.shapes import random_model
from proactivellm.bench.workload import Bench, Endless
from proactivellm.forward.causal_lm import StreamingCausalLM

SMALL: dict[str, Any] = {
    "source": 12,
    "target": 12,
    "k": 3,
    "long": 0,
    "repeats": 2,
    "sessions": (1, 4),
    "steps": 10,
    "window": 16,
    "units": (40, 80),
    "deadline_ms": 10_000.0,
    "unit_ms": 20.0,
    "seconds": 0.2,
    "max_sessions": 2,
}


def tiny_bench(
    text_model: StreamingCausalLM | None = None, served: list[str] | None = None, **sizes: Any
) -> Bench:
    """A benchmark whose sizes are those of SMALL, but for those given."""
    return Bench(
        model=Endless(random_model(tiny_config("llama"))),
        text_model=text_model,
        options=Options(**(SMALL | sizes)),
        progress=lambda what, done, total: None,
        served=served,
    )
