"""The sets that the bundled translator is calibrated and scored on."""

import gzip
import runpy
from pathlib import Path

SETS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "tatoeba_sets.py"))


def test_both_sides_are_joined_alike_and_sources_of_the_head_are_others(tmp_path: Path) -> None:
    num_pairs = 3 * SETS["NUM_DEV"] + 7
    lines = "".join(f"e{i}\td{i}\n" for i in range(num_pairs))
    for split in ("valid", "test"):
        (tmp_path / f"{split}.en-de.tsv.gz").write_bytes(gzip.compress(lines.encode()))
    out = tmp_path / "sets"
    SETS["main"](tmp_path, out)

    def read(name: str) -> list[str]:
        return (out / name).read_text(encoding="utf-8").splitlines()

    for split in ("valid", "test"):
        for size in (1, 3):
            german, english = read(f"{split}.{size}.de"), read(f"{split}.{size}.en")
            assert len(german) == num_pairs // size
            assert [line.replace("d", "e") for line in german] == english
    calibrated = " ".join(read("valid.3.de")[: SETS["NUM_DEV"]]).split()
    of_head = " ".join(read("head.de")).split()
    assert len(of_head) == 7 and not {*of_head} & {*calibrated}
