"""Files are replaced whole or not at all, folders of them too."""

import errno
import os
import stat
from pathlib import Path

import pytest

from proactivellm.files.replace import (
    remove_unfinished,
    replacing,
    replacing_in,
    write_text,
)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "table.json"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", full_disk)  # where a disk may tell it last
    with pytest.raises(OSError, match="No space left") as raised:
        write_text(file, "new")
    assert raised.value.filename == str(file)  # what the user knows, not the temporary name
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["table.json"]
    monkeypatch.undo()
    write_text(file, "new")
    assert file.read_text() == "new" and os.listdir(tmp_path) == ["table.json"]


def test_whatever_interrupts_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(file) as new:
        assert new.suffix == ".png" and new.parent == tmp_path
        new.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["picture.png"]


def test_links_and_modes_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink() and file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    mask = os.umask(0o027)
    write_text(tmp_path / "fresh", "x")
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


def test_what_is_no_file_is_written_to() -> None:
    write_text(os.devnull, "gone")
    assert Path(os.devnull).is_char_device()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_text("/dev/full", "too much")


def test_a_folder_changes_when_all_is_whole(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("old")
    (tmp_path / "other").write_text("other")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        with replacing_in(tmp_path) as new:
            (new / "weights").write_text("half")
            full_disk()
    assert sorted(os.listdir(tmp_path)) == ["other", "weights"]
    assert (tmp_path / "weights").read_text() == "old"
    with replacing_in(tmp_path) as new:
        (new / "weights").write_text("new")
        (new / "speech").mkdir()
        (new / "speech" / "weights").write_text("too")
    assert (tmp_path / "weights").read_text() == "new"
    assert (tmp_path / "speech" / "weights").read_text() == "too"
    assert sorted(os.listdir(tmp_path)) == ["other", "speech", "weights"]


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    for name in (".tmp-0123abcd", ".tmp-0123abcd.json", "kept"):
        (tmp_path / name).write_text("")
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-folder" / "file").write_text("")
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
