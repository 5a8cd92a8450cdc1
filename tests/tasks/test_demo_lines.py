"""The demo's sentences: everyday words, and never drawn by what a model makes of them."""

import gzip
import runpy
from pathlib import Path

DRAW = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "demo_lines.py"))


def test_everyday_sentences_have_known_words_and_are_neither_short_nor_long(tmp_path: Path) -> None:
    trained = "".join(f"e\tIch sehe dich heute, Nummer{i}!\n" for i in range(DRAW["FAMILIAR"]))
    valid = [
        "e1\tIch sehe dich.",
        "e2\tich SEHE dich heute!",
        "e3\tIch sehe.",  # too short
        "e4\tIch sehe dich morgen.",  # an unknown word
        "e5\tIch sehe dich " + "heute " * 6,  # too long
        "e6\tIch sehe dich nummer1.",  # a rare word
    ]
    for split, text in (("train", trained), ("valid", "\n".join(valid) + "\n")):
        (tmp_path / f"{split}.en-de.tsv.gz").write_bytes(gzip.compress(text.encode()))
    DRAW["main"](tmp_path, tmp_path)
    shown = (tmp_path / "everyday.demo.de").read_text(encoding="utf-8").splitlines()
    assert len(shown) == 1
    either = ("Ich sehe dich.", "ich SEHE dich heute!")
    assert shown[0] in (" ".join(either), " ".join(reversed(either)))
