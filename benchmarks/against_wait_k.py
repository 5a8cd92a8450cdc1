"""How far policies lie above or below wait-k at equal LAAL and DAL, and what of offline they keep.

    python benchmarks/against_wait_k.py results/scores.json

Wait-k is interpolated linearly between its measured points; outside of them there is no comparison.
Brackets hold 95 % of paired bootstrap resamples over the instances.
"""

import json
import sys
from pathlib import Path

from proactivellm.metrics.curves import Curve, make_curve, point_gaps
from proactivellm.metrics.folders import folder_name
from proactivellm.output.log import LOG_FILE, Instance, read_log

LATENCIES = ("LAAL", "DAL")


def main(path: Path) -> None:
    """Print a markdown table.

    Args:
        path: `scores.json` of an evaluation that has `offline` and several `wait-k`; its logs lie
            beside it.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))
    logs = [read_log(path.parent / folder_name(row["request"]) / LOG_FILE) for row in rows]
    offline = next(row["BLEU"] for row in rows if row["policy"] == "offline")
    schedules = [row["policy"].startswith("wait-k") for row in rows]
    wait_k = {name: _curve(_those(logs, schedules), name) for name in LATENCIES}
    print(
        "| policy | LAAL | DAL | RCO | BLEU | % of offline | over wait-k at equal LAAL | at DAL |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row, log in zip(rows, logs, strict=True):
        gains = [_gain(log, wait_k[name], name) for name in LATENCIES]
        print(
            f"| `{row['request']}` | {row['LAAL']:.2f} | {row['DAL']:.2f} | {row['RCO']:.3f} | "
            f"{row['BLEU']:.2f} | {100 * row['BLEU'] / offline:.1f} | {' | '.join(gains)} |"
        )


def _those(logs: list[list[Instance]], chosen: list[bool]) -> list[list[Instance]]:
    return [log for log, wanted in zip(logs, chosen, strict=True) if wanted]


def _curve(logs: list[list[Instance]], latency: str) -> Curve:
    ordered = [sorted(log, key=lambda instance: instance.index) for log in logs]
    return make_curve(ordered, latency=latency)


def _gain(log: list[Instance], wait_k: Curve, latency: str) -> str:
    (gap,) = point_gaps(_curve([log], latency), wait_k)
    return "-" if gap is None else f"{gap.gap:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
