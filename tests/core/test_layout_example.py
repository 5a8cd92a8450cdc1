"""The worked example of docs/extending/layout.md runs as it stands."""

import re
from pathlib import Path

import pytest

from proactivellm.core import layout

PAGE = Path(__file__).parents[2] / "docs/extending/layout.md"


def test_the_worked_example_of_a_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "LAYOUTS", {**layout.LAYOUTS})
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(block.splitlines()) < 60
    names: dict[str, object] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    assert "tools" in layout.LAYOUTS and "logits" in names
