"""Plain-text dev and test sets from the Tatoeba pairs: single pairs and concatenations of three.

    python benchmarks/tatoeba_sets.py ../shared/data/tatoeba-en-de runs/sets

writes {valid,test}.{1,3}.{de,en}, line i of both sides belonging together. Concatenations join
neighbours after a fixed shuffle, because neighbours in the files resemble each other. Besides,
head.de: sources of one to three sentences for the head of `learned`, from valid, without those that
are in the first 150 lines of valid.3.de.
"""

import random
import sys
from pathlib import Path

from proactivellm.tasks.translation import read_tsv

NUM_DEV = 150  # concatenations of valid from which thresholds come


def main(data: Path, out: Path) -> None:
    """Writes the sets of the pairs in `{valid,test}.en-de.tsv.gz` of a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for split in ("valid", "test"):
        tsv = str(data / f"{split}.en-de.tsv.gz")
        pairs = [*read_tsv(tsv, source_column=1, target_column=0)]
        random.Random(0).shuffle(pairs)
        for size in (1, 3):
            groups = [pairs[i : i + size] for i in range(0, len(pairs) - size + 1, size)]
            for side, suffix in ((0, "de"), (1, "en")):
                lines = [" ".join(pair[side] for pair in group) for group in groups]
                text = "\n".join(lines) + "\n"
                (out / f"{split}.{size}.{suffix}").write_text(text, encoding="utf-8")
        if split == "valid":
            sources = [source for source, *_ in pairs[NUM_DEV * 3 :]]
            text = "\n".join(_runs(sources)) + "\n"
            (out / "head.de").write_text(text, encoding="utf-8")


def _runs(sources: list[str]) -> list[str]:
    """One, two, three sentences by turns."""
    runs, at = list[str](), 0
    while at < len(sources):
        size = 1 + len(runs) % 3
        runs.append(" ".join(sources[at : at + size]))
        at += size
    return runs


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
