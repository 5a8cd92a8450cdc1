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
