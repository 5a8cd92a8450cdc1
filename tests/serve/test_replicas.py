"""What replicas need of a server, without Ray; tests/serve/ray_replicas.py has the rest."""

from collections.abc import Callable
from typing import Any

from proactivellm.serve.app import create_app
from proactivellm.serve.metrics import Metrics, merged
from proactivellm.serve.session_ids import new_id, place_of
from proactivellm.serve.settings import Settings


def test_metrics_of_several_are_told_apart() -> None:
    metrics = [Metrics(), Metrics()]
    for number, each in enumerate(metrics, start=1):
        for _ in range(number):
            each.refused("full")
            each.waited("m", 0.3)
    text = merged({f"r{n}": each.text().decode() for n, each in enumerate(metrics, start=1)})
    lines = text.decode().splitlines()
    for n in (1, 2):
        assert f'proactivellm_refusals_total{{code="full",replica="r{n}"}} {n}.0' in lines
        assert f'proactivellm_lane_wait_seconds_count{{model="m",replica="r{n}"}} {n}.0' in lines
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(
        {line for line in lines if line.startswith("# TYPE")}
    )


def test_an_id_tells_the_place(model: str, run: Callable[..., Any]) -> None:
    assert (place_of(new_id("ab12")), place_of(new_id("")), place_of("")) == ("ab12", "", "")
    app = create_app(Settings(models=(model,)), "ab12")

    async def opened() -> str:
        session = await app.state.sessions.open()
        await app.state.models.close()
        return str(session.id)

    assert place_of(run(opened())) == "ab12"
