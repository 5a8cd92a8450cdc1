"""Manifests: lines that do not fit are refused in one line that names the key."""

import gzip
from pathlib import Path

import pytest

from proactivellm.tasks.speech import read_manifest


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"audio": 5, "text": "a"}', "audio: Input should be a valid string, not '5'"),
        ('{"source": "a", "text": null}', "text: Input should be a valid string, not 'None'"),
        ('{"source": "a", "duration_s": NaN}', "duration_s: Input should be a finite number"),
        ('{"audio": [], "text": "a"}', "give either `audio`, `video` or `source`"),
        ('{"source": "\\ud800"}', "half of a surrogate pair"),
        ('{"source": "a", "txt": "b"}', "txt: Extra inputs are not permitted, not 'b'"),
        ("5", "'5' is no JSON object"),
    ],
)
def test_a_line_that_does_not_fit(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"source": "gut"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}, line 2: {told}")
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_gzip_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(b'{"source": "ein", "text": "one"}\n'))
    (item,) = read_manifest(tmp_path / "m.jsonl.gz")
    assert (item.source, item.target) == ("ein", "one")


def test_times_of_evidence_are_of_words(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = [
        '{"video": "a.mkv", "text": "red square", "evidence_s": [1.0, 2.5], "group": "tell"}',
        '{"video": "a.mkv", "text": "it is red", "evidence_s": 3}',
        '{"video": "a.mkv", "text": "", "evidence_s": 3}',
        '{"video": "a.mkv", "text": "red"}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    items = read_manifest(path)
    assert [item.evidence_s for item in items] == [(1.0, 2.5), (3.0, 3.0, 3.0), (3.0,), ()]
    assert [item.group for item in items] == ["tell", "", "", ""]
    for times in ("[1.0]", "[2.0, 1.0]", "-1.0"):
        path.write_text(f'{{"video": "a.mkv", "text": "a b", "evidence_s": {times}}}')
        with pytest.raises(ValueError, match=r"line 1: .*evidence_s"):
            read_manifest(path)
