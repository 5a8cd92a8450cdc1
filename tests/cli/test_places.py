"""No command writes over what it reads."""

import os
import shutil
from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines

from proactivellm.cli.places import check_places


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_lines(tmp_path / "source", "der Hund"), write_lines(tmp_path / "target", "a dog")


def test_stream(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    source, _ = files
    os.link(source, tmp_path / "twin")
    for log in (source, tmp_path / "twin"):
        command = ("stream", "--model", tmp_path / "nothing", "--input", source)
        error = run(*command, "--log", log).error
        assert error.startswith(f"--log {log} would overwrite --input {source}, which is read")
    assert source.read_text() == "der Hund\n"


def test_a_model_is_an_input(run: Run, model: str, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    before = (copy / "model.safetensors").read_bytes()
    error = run("stream", "--model", copy, "--log", copy / "model.safetensors").error
    assert error.startswith(f"--log {copy / 'model.safetensors'} would overwrite --model {copy}")
    assert (copy / "model.safetensors").read_bytes() == before


def test_evaluate_and_calibrate(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    source, target = files
    (tmp_path / "out").mkdir()
    scores = write_lines(tmp_path / "out" / "scores.json", "der Hund")
    command = ("evaluate", "--policy", "wait-k:1", "--out", tmp_path / "out")
    assert "would overwrite --source" in run(*command, "--source", scores).error
    error = run("calibrate", "--source", source, "--target", target, "--out", target).error
    assert f"--out {target} would overwrite --target {target}" in error
    assert scores.read_text() == "der Hund\n" and target.read_text() == "a dog\n"


def test_show_and_compare(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    source, _ = files
    show = ("show", "--source-file", source)
    assert "--json" in run(*show, "--json", source).error
    page = tmp_path / "page.html"
    assert "are one file" in run(*show, "--out", page, "--json", page).error
    for name in "ab":
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / "instances.log")
    log = tmp_path / "b" / "instances.log"
    compare = ("compare", tmp_path / "a", tmp_path / "b")
    for flag in ("--out", "--curve"):
        assert f"{flag} {log} would overwrite the log {log}" in run(*compare, flag, log).error
    assert source.read_text() == log.read_text() == "der Hund\n"


def test_members_of_archives_are_their_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(ValueError, match="would overwrite --input .*a.zip:b.wav"):
        check_places([("--log", archive)], [("--input", f"{archive}:b.wav")])
