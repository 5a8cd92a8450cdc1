"""Test sets of lookup questions: one of each level, with where the evidence stands.

    python benchmarks/lookup_sets.py runs/lookup [COUNT [SEED]]

writes {valid,test}.{easy,medium,hard}.{src,tgt,evidence}, line i of all belonging together; the
last holds the units of the source up to and including the answer's first word (for "unknown", all
of them), which `benchmarks/answer_times.py` reads.
"""

import sys
from pathlib import Path

from proactivellm.tasks.lookup import draw

LEVELS = ("easy", "medium", "hard")


def main(out: Path, count: int = 500, seed: int = 0) -> None:
    """Writes sets of so many questions each."""
    out.mkdir(parents=True, exist_ok=True)
    for split in ("valid", "test"):
        for level in LEVELS:
            questions = draw([level], count, seed, split)
            sides = {
                "src": [question.source for question in questions],
                "tgt": [question.target for question in questions],
                "evidence": [str(question.evidence) for question in questions],
            }
            for side, lines in sides.items():
                text = "\n".join(lines) + "\n"
                (out / f"{split}.{level}.{side}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:4]))
