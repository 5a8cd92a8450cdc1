"""Suite `serve` of `bench`: sessions over the network, against a server of the tests."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.bench.benches import tiny_bench
from tests.modality.speech.signals import voice
from tests.serve.conftest import Running, running
from tests.serve.test_realtime import loaded

from proactivellm.bench import serving
from proactivellm.bench.serving import Address, Speakers, run_serving
from proactivellm.client import Delta
from proactivellm.report.bench_tables import bench_tables
from proactivellm.report.console import print_tables
from proactivellm.serve.settings import Settings


@pytest.fixture(scope="module")
def both(model: str, listener: str) -> Iterator[Running]:
    """A server without a key."""
    with running(Settings(models=(model, listener), sessions=3)) as it:
        yield it


@pytest.mark.parametrize("speech", [False, True])
def test_sessions_are_kept_up_with_or_refused(
    both: Running,
    model: str,
    listener: str,
    speech: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def here(flags: Sequence[str], streams: int, sessions: int) -> Iterator[Address]:
        assert (flags, streams, sessions) == (["--model", "x"], 4, 8)
        yield Address(both.url, os.getpid())

    pieces = np.split((32767 * voice(0.6)).astype("<i2"), 6)
    spoken = Speakers([[piece.tobytes() for piece in pieces]], 0.1, speech=True)
    monkeypatch.setattr(serving, "serving", here)
    monkeypatch.setattr(serving, "audio_speakers", lambda: spoken)
    sizes: dict[str, Any] = {"max_sessions": 4, "seconds": 0.3, "unit_ms": 20.0}
    bench = tiny_bench(loaded(listener if speech else model), served=["--model", "x"], **sizes)
    result: dict[str, Any] = {}
    run_serving(bench, result)
    assert result["speech"] == speech and result["unit_ms"] == bench_unit_ms(bench)
    points = {point["sessions"]: point for point in result["curve"]}
    assert result["sustained"] == {"p95": 3, "p99": 3}  # the server takes no more
    for number in (1, 2, 3):
        assert points[number]["units"] > 0 == points[number]["failed"] == points[number]["late"]
    assert points[4]["failed"] == 1 and points[4]["failures"] == ["too_many_sessions"]
    print_tables(bench_tables({"suites": {"serve": result}}), "all")
    assert "sessions sustained: p95: 3" in capsys.readouterr().out


def bench_unit_ms(bench: Any) -> float:
    front_end = bench.text_model.front_end
    return float(bench.options.unit_ms if front_end is None else 1000 * front_end.unit_s)


@pytest.mark.parametrize(
    ("source_s", "piece"), [(0.0, 0), (0.1, 0), (0.3, 2), (0.30001, 3), (0.35, 3)]
)
def test_what_was_heard_last_is_in_a_piece(source_s: float, piece: int) -> None:
    delta = Delta("x", 9, source_s, 0.0, None, None)
    assert Speakers([], 0.1, speech=True).place(delta) == piece
    assert Speakers([], 0.4, speech=False).place(delta) == 8


def test_weights_that_were_drawn_are_not_served() -> None:
    with pytest.raises(ValueError, match="suite serve: give a model that can be loaded"):
        run_serving(tiny_bench(), {})
