"""How far each policy lies above or below wait-k at equal LAAL, and what of offline it keeps.

    python benchmarks/against_wait_k.py results/scores.json

Wait-k is interpolated linearly between its measured points; outside of them there is no comparison.
"""

import json
import sys
from pathlib import Path

import numpy as np


def main(path: Path) -> None:
    """Prints a table of the scores of an evaluation that has `offline` and several `wait-k`."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    wait_k = sorted((r["LAAL"], r["BLEU"]) for r in rows if r["policy"].startswith("wait-k"))
    offline = next(r["BLEU"] for r in rows if r["policy"] == "offline")
    laal, bleu = zip(*wait_k, strict=True)
    print("| policy | LAAL | RCO | BLEU | % of offline | over wait-k at equal LAAL |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        inside = laal[0] <= row["LAAL"] <= laal[-1]
        gain = f"{row['BLEU'] - np.interp(row['LAAL'], laal, bleu):+.1f}" if inside else "-"
        print(
            f"| `{row.get('request', row['policy'])}` | {row['LAAL']:.2f} | {row['RCO']:.3f} | "
            f"{row['BLEU']:.2f} | {100 * row['BLEU'] / offline:.1f} | {gain} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
