"""An output that is an input is refused, by whatever name."""

import os
from pathlib import Path

import pytest

from proactivellm.files.apart import check_apart


def test_an_input_is_known_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "source"
    file.write_text("text")
    (tmp_path / "link").symlink_to(file)
    os.link(file, tmp_path / "twin")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (file, "source", "link", tmp_path / "twin", "folder/../source"):
        with pytest.raises(ValueError, match=f"--log {name} would overwrite --input source") as e:
            check_apart([("--log", name)], [("--input source", "source")])
        assert "give another file" in str(e.value)
    check_apart([("--log", "other"), ("--out", None)], [("--input", file), ("--target", None)])


def test_standard_input_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "source"
    file.write_text("text")
    with file.open() as opened:
        with pytest.raises(ValueError, match="would overwrite standard input"):
            check_apart([("--log", file)], [("standard input", opened.fileno())])


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--json .*a and --out are one file: give two"):
        check_apart([("--out", tmp_path / "a"), ("--json", f"{tmp_path}/./a")], [])


def test_what_is_no_file_loses_nothing() -> None:
    check_apart([("--log", os.devnull)], [("--input", os.devnull)])
