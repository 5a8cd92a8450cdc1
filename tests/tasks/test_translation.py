"""Reading pairs: files that fit, and one clear line for each that does not."""

import gzip
from pathlib import Path

import pytest
from pydantic import ValidationError

from proactivellm.tasks.translation import Pair, PairFiles, read_pairs


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
    files = PairFiles(tsv=path, source_column=2, target_column=1)
    assert read_pairs(files) == [Pair("Der Hund", "The dog"), Pair("Eine Katze", "A cat")]


def test_parallel_files(write):
    files = PairFiles(source=write("s.de", "eins\nzwei"), target=write("t.en.gz", "one\ntwo\n"))
    assert read_pairs(files) == [Pair("eins", "one"), Pair("zwei", "two")]


def test_byte_order_mark_is_no_text(write):
    assert read_pairs(PairFiles(tsv=write("p", b"\xef\xbb\xbfa\tb\n"))) == [Pair("a", "b")]


def test_pairs_with_an_empty_side_are_left_out_before_the_limit(write):
    path = write("p", "a\t \n\tb\nc\td\ne\tf\ng\th\n")
    assert read_pairs(PairFiles(tsv=path, limit=2)) == [Pair("c", "d"), Pair("e", "f")]
    assert len(read_pairs(PairFiles(tsv=path))) == 3


def test_files_of_different_lengths(write):
    source, target = write("s", "a\nb\nc\n"), write("t", "a\nb\n")
    with pytest.raises(ValueError, match="s has 3 lines but .*t has 2: line i of both must belong"):
        read_pairs(PairFiles(source=source, target=target))


def test_missing_file():
    with pytest.raises(ValueError, match="nowhere.tsv: no such file"):
        read_pairs(PairFiles(tsv="nowhere.tsv"))


def test_missing_column(write):
    files = PairFiles(tsv=write("p", "a\tb\nc\n"))
    with pytest.raises(ValueError, match="line 2 has 1 columns; .*target_column=1 need 2"):
        read_pairs(files)


def test_not_utf8(write):
    with pytest.raises(ValueError, match="p: line 2 is not UTF-8"):
        read_pairs(PairFiles(tsv=write("p", b"a\tb\nGr\xf6\xdfe\tsize\n")))


@pytest.mark.parametrize("cut", [1, 12, -9])
def test_broken_archive(write, tmp_path, cut):
    path = Path(write("p.gz", "a\tb\n" * 5000))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"p\.gz: cannot be read after line \d+"):
        read_pairs(PairFiles(tsv=str(path)))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "give `tsv`, or both `source` and `target`"),
        ({"source": "a"}, "give `tsv`, or both `source` and `target`"),
        ({"tsv": "a", "source": "b", "target": "c"}, "not both"),
        ({"tsv": "a", "limit": -1}, "limit"),
        ({"tsv": "a", "source_column": -1}, "source_column"),
        ({"tsv": "a", "colum": 1}, "colum"),
    ],
)
def test_contradictions(files, message):
    with pytest.raises(ValidationError, match=message):
        PairFiles(**files)
