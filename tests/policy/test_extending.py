"""The worked example of docs/extending/evidence.md runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs/extending/evidence.md"


def test_the_example_runs_and_tells_why(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert sum(block.count("\n") for block in code) < 60
    names: dict[str, Any] = {"__name__": "example"}
    for block in code:
        exec(compile(block, str(PAGE), "exec"), names)
    policy = names["Lead"](threshold=0.3, max_lag=4)
    assert policy.spec in page
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines].count("READ") == 7
    assert lines[-1] == ["END", "end", "token"]
    reasons = {" ".join(line).split(" ", 1)[1] for line in lines if line[0] == "WRITE"}
    assert any(reason.endswith("policy") for reason in reasons)
    assert any(reason.endswith("source finished") for reason in reasons)
    assert names["session"].text
