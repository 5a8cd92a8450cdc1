"""Before its model is there, a command says that it loads it, and imports little until then."""

import gc
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.cli.commands import write_lines

from proactivellm.cli import display, main
from proactivellm.cli.messages import status, warn
from proactivellm.cli.models import loading

HEAVY = ("torch", "transformers", "numpy", "huggingface_hub", "asyncio", "rich.table")


def python(code: str, *arguments: str) -> str:
    """What a new interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("arguments", [["stream"], ["stream", "--input", "mic", "--model", "x"]])
def test_a_message_comes_before_anything_heavy_is_imported(arguments: list[str]) -> None:
    code = """
        import os, sys
        from proactivellm.cli import main

        class Told:
            def write(self, text):
                print(text.strip(), *(name for name in sys.argv[1].split() if name in sys.modules))
                sys.stdout.flush()
                os._exit(0)

            def isatty(self):
                return False

        sys.stderr = Told()
        main(sys.argv[2:])
    """
    assert python(code, " ".join(HEAVY), *arguments).split() == [
        "loading",
        "x" if "x" in arguments else "tatoeba-de-en",
    ]


def test_help_and_the_package_itself_import_nothing_heavy() -> None:
    code = """
        import io, sys
        import proactivellm
        from proactivellm.cli import main

        out, sys.stdout = sys.stdout, io.StringIO()
        for command in ("stream", "show", "evaluate", "calibrate", "train", "study", "bench"):
            try:
                main([command, "--help"])
            except SystemExit as end:
                assert not end.code
        print(*(name for name in sys.argv[1].split() if name in sys.modules), file=out)
    """
    heavy = [name for name in HEAVY if name != "rich.table"]  # the help is made of such
    assert python(code, " ".join(heavy)).split() == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("'stream', 'none', 'tatoeba-de-en'", "False"),
        ("'stream', 'int8', 'tatoeba-de-en'", "True"),
        ("'stream', 'none', 'owner/of-the-hub'", "True"),  # it may be stored quantised
    ],
)
def test_torchao_is_imported_only_where_it_may_be_needed(arguments: str, expected: str) -> None:
    pytest.importorskip("torchao")
    code = f"""
        from importlib.util import find_spec
        from proactivellm.cli import models

        models.process_is_ours = True
        _, quantization, model = {arguments}
        with models.loading(model, quantization):
            print(find_spec("torchao") is not None)
        assert find_spec("torchao")
    """
    assert python(code).strip() == expected


def test_the_message_goes_from_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "10")
    with pytest.raises(ValueError), status("loading a model"):
        assert capsys.readouterr().err == "loading a"
        raise ValueError
    assert capsys.readouterr().err == f"\r{' ' * 9}\r"
    with status("loading"):
        warn("warning")
    assert capsys.readouterr().err == f"loading\r{' ' * 7}\rwarning\n"


def test_garbage_is_collected_again_once_all_is_loaded() -> None:
    with loading("a model"):
        assert not gc.isenabled()
    try:
        assert gc.isenabled() and gc.get_freeze_count()
        with pytest.raises(ValueError), loading("a model"):
            raise ValueError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_drawing_begins_when_the_message_has_gone(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def choose_display(*_: object) -> display.PipeDisplay:
        assert capsys.readouterr().err.endswith("\r")
        return display.PipeDisplay()

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(display, "choose_display", choose_display)
    text = write_lines(tmp_path / "text", "Der Hund")
    with pytest.raises(SystemExit) as ended:
        main(["stream", "--model", model, "--input", str(text)])
    assert not ended.value.code and capsys.readouterr().out.endswith("\n")
