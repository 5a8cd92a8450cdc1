"""`benchmarks/soak.py`, for a minute: 200 connections, 32 lanes, nothing that stays.

`make live` runs it, beside what computes: it mostly waits.
"""

import asyncio
import importlib.util
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import running

from proactivellm.bench.serving import Address
from proactivellm.serve.settings import Settings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"
SECONDS = float(os.environ.get("PROACTIVELLM_SOAK_S", "60"))
CONNECTIONS, LANES = 200, 32
PAUSE_S = 100.0  # at most, between two turns: all begin at once, and some 4 turns a second follow


@pytest.fixture(scope="module")
def soak() -> Any:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_many_come_and_go_and_nothing_stays(model: str, soak: Any) -> None:
    settings = Settings(models=(model,), streams=LANES, sessions=CONNECTIONS + 56, resume_s=0.2)
    with running(settings) as server:
        (served,) = server.app.state.models
        address = Address(server.url, os.getpid())
        many = soak.Soak(address, SECONDS, CONNECTIONS, pause_s=PAUSE_S)
        threads = threading.active_count()
        asyncio.run(many.run(print))
        until_s = time.monotonic() + 5
        while len(server.app.state.sessions) or served.active:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        assert many.faults() == []
        assert many.told["ended"] >= CONNECTIONS
        cache = served.engine.cache
        assert not any(cache.pages) and not any(cache.lengths)
        assert threading.active_count() <= threads + 1  # of the loop's own pool


def test_what_should_not_be_is_told(soak: Any) -> None:
    bad = soak.Soak(Address("", 0), 1.0, 3)
    bad.told.update({"ended": 5, "too_many_streams": 1, "engine_failed": 2})
    bad.turns.update({0: 3, 1: 2})
    bad.memory_mib = [100.0, 100.0, 100.0, 100.0, 105.9]
    told = ["engine_failed: 2", "1 connections had no turn", "memory: 100 to 106 MiB"]
    assert bad.faults() == told
