"""Everyday sentences for the demo, drawn by a rule that looks at nothing but the sources.

    python benchmarks/demo_lines.py ../shared/data/tatoeba-en-de runs/sets

writes everyday.demo.de (six lines of three sentences: the demo) and everyday.de, everyday.en (90
further pairs, to be read and judged). A sentence is everyday if it has three to eight words and the
sources of the training set hold each of them at least 200 times. The order is random and fixed.
"""

import random
import re
import sys
from collections import Counter
from pathlib import Path

from proactivellm.tasks.translation import read_tsv

FAMILIAR = 200  # times in the training sources
SHORTEST, LONGEST = 3, 8  # words
NUM_LINES, PER_LINE, NUM_JUDGED = 6, 3, 90


def main(data: Path, out: Path) -> None:
    """Draws pairs from `valid.en-de.tsv.gz` of a folder, counts words in `train.en-de.tsv.gz`."""
    out.mkdir(parents=True, exist_ok=True)
    counts = Counter(word for source, *_ in _pairs(data, "train") for word in _words(source))
    valid = [pair for pair in _pairs(data, "valid") if _everyday(pair[0], counts)]
    random.Random(0).shuffle(valid)
    num_shown = NUM_LINES * PER_LINE
    shown, judged = valid[:num_shown], valid[num_shown : num_shown + NUM_JUDGED]
    print(f"{len(valid)} sentences of valid are everyday")
    sources = [source for source, *_ in shown]
    joined = [" ".join(sources[i : i + PER_LINE]) for i in range(0, len(sources), PER_LINE)]
    _write(out / "everyday.demo.de", joined)
    _write(out / "everyday.de", [pair[0] for pair in judged])
    _write(out / "everyday.en", [pair[1] for pair in judged])


def _pairs(data: Path, split: str) -> list[tuple[str, ...]]:
    tsv = str(data / f"{split}.en-de.tsv.gz")
    return [*read_tsv(tsv, source_column=1, target_column=0)]


def _words(sentence: str) -> list[str]:
    return re.findall(r"\w+", sentence.casefold())


def _everyday(sentence: str, counts: Counter[str]) -> bool:
    words = _words(sentence)
    return SHORTEST <= len(words) <= LONGEST and all(counts[word] >= FAMILIAR for word in words)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
