"""`stream` with targets that end before their line: the rest of it is no line of its own."""

import json
from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines
from tests.models import save_tiny

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.cli import live_lines
from proactivellm.output.log import read_log

LINES = ("Der Hund schläft auf dem Sofa", "ein Mann", "", "und ein Mann putzt das Fenster")
LENGTHS = (6, 2, 0, 6)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a model of which every token ends the target."""
    folder = save_tiny("qwen3", tmp_path_factory.mktemp("hasty"))
    StreamSettings(early_end=True).save(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text()) | {"eos_token_id": list(range(rows))}
    file.write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.parametrize("rate", [(), ("--rate", 6000)])
@pytest.mark.parametrize("count", [1, 2])
def test_lines_are_told_apart(
    run: Run,
    hasty: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    rate: tuple[object, ...],
) -> None:
    monkeypatch.setattr(live_lines, "_CHUNK_BYTES", 5)  # lines arrive in pieces
    files = [write_lines(tmp_path / str(i), *LINES) for i in range(count)]
    inputs = [part for file in files for part in ("--input", file)]
    log = tmp_path / "log"
    command = ("stream", "--model", hasty, "--policy", "wait-k:2", "--log", log)
    assert run(*command, *inputs, *rate).code == 0
    instances = read_log(log)
    by_length: dict[int, list[list[int]]] = {}
    assert len(instances) == count * len(LINES)
    for instance in instances:
        by_length.setdefault(len(instance.source.split()), []).append(instance.token_delays)
        assert not instance.prediction
        assert 2 <= instance.source_length <= 6 or not instance.source
    if count == 2:  # all of a line is taken before the next one begins
        assert sorted(instance.source for instance in instances) == sorted(LINES * 2)
    assert sum(delays == [2] for group in by_length.values() for delays in group) == 3 * count
