"""Reading pairs: files that fit, and one clear line for each that does not."""

import gzip
from pathlib import Path

import pytest

from proactivellm.tasks.item import Item
from proactivellm.tasks.translation import read_parallel, read_tsv


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file and returns its path as a string."""

    def write(name: str, content: bytes | str) -> str:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.tsv.gz"])
def test_columns_of_a_tsv(write, name):
    path = write(name, "7\tThe  dog\tDer Hund\r\n8\tA cat\t Eine\u00a0Katze \n")
    items = list(read_tsv(path, source_column=2, target_column=1))
    assert items == [
        Item("Der Hund", "The dog", place=f"{path}, line 1"),
        Item("Eine Katze", "A cat", place=f"{path}, line 2"),
    ]


def test_parallel_files(write):
    source, target = write("s.de", "eins\nzwei"), write("t.en.gz", "one\ntwo\n")
    items = read_parallel(source, target)
    assert [item[:2] for item in items] == [("eins", "one"), ("zwei", "two")]


def test_byte_order_mark_is_no_text(write):
    assert [item[:2] for item in read_tsv(write("p", b"\xef\xbb\xbfa\tb\n"))] == [("a", "b")]


def test_pairs_with_an_empty_side_are_left_out(write):
    path = write("p", "a\t \n\tb\nc\td\ne\tf\ng\th\n")
    assert [item.source for item in read_tsv(path)] == ["c", "e", "g"]


def test_files_of_different_lengths(write):
    source, target = write("s", "a\nb\nc\n"), write("t", "a\nb\n")
    with pytest.raises(ValueError, match="s has 3 lines but .*t has 2: line i of both must belong"):
        list(read_parallel(source, target))
    with pytest.raises(ValueError, match="s has 3 lines but .*t has 2"):
        list(read_parallel(target, source))


def test_missing_file():
    with pytest.raises(
        ValueError, match="cannot read 'nowhere.tsv': No such file or directory: check the path"
    ):
        list(read_tsv("nowhere.tsv"))


def test_missing_column(write):
    path = write("p", "a\tb\nc\n")
    with pytest.raises(ValueError, match="line 2 has 1 columns; .*target_column=1 need 2"):
        list(read_tsv(path))


def test_not_utf8(write):
    with pytest.raises(ValueError, match="p, line 2: 0xf6 at byte offset 6 is not UTF-8"):
        list(read_tsv(write("p", b"a\tb\nGr\xf6\xdfe\tsize\n")))


@pytest.mark.parametrize("cut", [1, 12, -9])
def test_broken_archive(write, tmp_path, cut):
    path = Path(write("p.gz", "a\tb\n" * 5000))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"p\.gz: cannot be read after line \d+"):
        list(read_tsv(str(path)))
