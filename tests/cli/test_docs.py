"""What README and docs show runs as it stands: commands, Python, recipes, links, names of files."""

import io
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from PIL import Image
from tests.cli.commands import Run
from tests.serve.conftest import running

from proactivellm.cli.app import app
from proactivellm.files.toml import load_toml
from proactivellm.metrics.folders import folder_name
from proactivellm.policy.spec import PolicySpec
from proactivellm.serve.settings import Settings
from proactivellm.train.recipe import Recipe

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])
    if path.name not in ("CHANGELOG.md", "LOG.md")  # these tell of what was
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Code blocks of a language, each with its page."""
    for page, text in PAGES.items():
        for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL):
            yield page, block


def commands() -> Iterator[tuple[str, str]]:
    """Every line of a shell block, and every command in running text, with its page."""
    for page, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield page, line.partition("  # ")[0].strip()
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for span in re.findall(r"`(proactivellm\s[^`]*--[^`]*|make [a-z-]+)`", prose):
            yield page, " ".join(span.split())


def test_there_is_something_to_look_at() -> None:
    assert len(PAGES) > 10 and len(list(commands())) > 40 and len(list(blocks("python"))) >= 2


def test_every_command_is_one() -> None:
    program = typer.main.get_command(app)
    for page, line in commands():
        if "proactivellm " not in line or "simuleval" in line or "STUDY" in line:
            continue
        _, name, *arguments = shlex.split(line[line.index("proactivellm ") :], comments=True)
        assert name in program.commands, (page, line)  # type: ignore[attr-defined]
        context = program.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]
        given = context.params.get("policy") or [] if name != "calibrate" else []
        for spec in [given] if isinstance(given, str) else given:
            PolicySpec.parse(spec)


def test_every_result_that_is_read_was_written() -> None:
    """A folder of results that one command reads is one that a command of the page makes."""
    for page, block in blocks("bash"):
        read = re.findall(r"\bresults/([^/\s]+)/", block)
        written = {folder_name(spec) for spec in re.findall(r"--policy (\S+)", block)}
        assert set(read) <= written, page


def test_make_targets_and_scripts_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, line in commands():
        if line.startswith("make "):
            assert line.split()[1] in targets, (page, line)
        for script in re.findall(r"\bpython ((?:tools|benchmarks|examples)/\S+)", line):
            assert (ROOT / script).is_file(), (page, line)


def test_what_is_piped_into_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    piped = [
        re.findall(r'^echo "(.*)" \| proactivellm (.*)$', block, re.MULTILINE)
        for _, block in blocks("bash")
    ]
    written = []
    for text, arguments in dict.fromkeys(pair for pairs in piped for pair in pairs):
        stdin = types.SimpleNamespace(buffer=io.BytesIO(text.encode()), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        written.append(run(*shlex.split(arguments, comments=True)).out)
    assert "oslo\n" in written
    assert len(written) >= 2 and all(written)


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(*found, id=found[0])
        for found in blocks("python")
        if not found[0].startswith("docs/extending/")  # a test of its own runs each of these whole
    ],
)
def test_python_runs(
    page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    if (usual := "127.0.0.1:8000") not in block:
        exec(compile(block, page, "exec"), {})
        return
    watches = "VideoClient" in block
    (tmp_path / "frames").mkdir()
    for number in range(4 * watches):
        Image.new("RGB", (48, 48), (20, 20, 20)).save(tmp_path / "frames" / f"{number}.jpg")
    model = str(ROOT / "models/shapes") if watches else "tatoeba-de-en"
    with running(Settings(models=(model,))) as server:
        exec(compile(block.replace(usual, f"127.0.0.1:{server.port}"), page, "exec"), {})


def test_recipes_are_valid(tmp_path: Path) -> None:
    # Recipes of the pages on extending name what the page adds; a test of each page runs it whole.
    recipes = [found for found in blocks("toml") if not found[0].startswith("docs/extending/")]
    assert recipes
    for page, block in recipes:
        path = tmp_path / "my.toml"
        path.write_text(block, encoding="utf-8")
        assert load_toml(path, Recipe).backbone.pretrained, page


def test_links_lead_somewhere() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
            assert ((ROOT / page).parent / target).exists(), (page, target)


def test_files_that_the_architecture_names_exist() -> None:
    """Each way through the code is at most ten steps, and every file of it is there."""
    page = PAGES["docs/ARCHITECTURE.md"]
    named = re.findall(r"`([a-z_/0-9]+\.py)`", page)
    assert len(named) > 30
    assert [name for name in named if not (ROOT / "src/proactivellm" / name).is_file()] == []
    ways = page.split("\n## ")[1:]
    assert len(ways) == 3
    for way in ways:
        assert 5 < len(re.findall(r"^\d+\. ", way, re.MULTILINE)) <= 10


def test_the_readme_names_every_room() -> None:
    tree = PAGES["README.md"].partition("src/proactivellm/\n")[2].partition("```")[0]
    rooms = {path.parent.name for path in (ROOT / "src/proactivellm").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^  ([a-z]+)/", tree, re.MULTILINE))
