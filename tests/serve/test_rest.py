"""Plain HTTP: one text as server-sent events, and what Prometheus is told."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.serve.conftest import KEY, Running

SOURCE = "a man in a hat looks at the window and sleeps"
HEADERS = {"Authorization": f"Bearer {KEY}"}


def translate(server: Running, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/translations", json=body, headers=HEADERS)


def test_a_text_is_translated_in_events(server: Running) -> None:
    told = translate(server, text=SOURCE, policy="wait-k:2", decisions=True)
    assert told.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in told.text.strip().split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name for name, _ in blocks] == [f"event: {event['type']}" for event in events]
    done = events[-1]
    deltas = [event for event in events if event["type"] == "translation.text.delta"]
    assert "".join(event["delta"] for event in deltas) == done["text"] != ""
    assert [e["proactivellm"]["source_units"] for e in deltas][0] == 2
    whole = translate(server, text=SOURCE, policy="wait-k:2", stream=False).json()
    assert whole["text"] == done["text"]
    assert whole["proactivellm"]["policy"] == "wait-k:2"
    assert any(event.get("action") == "READ" for event in events)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": "x", "model": "nobody"}, 404, "model_not_found"),
        ({"text": ""}, 400, "invalid_event"),
        ({"text": "x", "polcy": "wait-k:2"}, 400, "invalid_event"),
        ({"text": "x", "policy": "wait-q:2"}, 400, "invalid_policy"),
        ({"text": "x" * 2**20}, 413, "body_too_large"),
    ],
)
def test_a_wrong_body_is_told(
    server: Running, body: dict[str, Any], status: int, code: str
) -> None:
    told = translate(server, **body)
    assert (told.status_code, told.json()["error"]["code"]) == (status, code)


def test_metrics_count_what_happens(server: Running) -> None:
    def told() -> Callable[[str], float]:
        lines = httpx.get(f"{server.url}/metrics", headers=HEADERS).text.splitlines()

        def value(name: str) -> float:
            return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

        return value

    names = ("turns_total", "deltas_total", "lag_seconds_count", "engine_steps_total")
    names += ("first_text_seconds_count", "lane_wait_seconds_count", "refusals_total")
    before = told()
    translate(server, text=SOURCE)
    translate(server, text="")
    value = told()
    assert all(value(f"proactivellm_{name}") > before(f"proactivellm_{name}") for name in names)
    assert value("proactivellm_turns_active") == 0
    assert value("process_resident_memory_bytes") > 0
