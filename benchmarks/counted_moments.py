"""Whether a model that counts while it watches thinks the right number after each moment.

    python benchmarks/counted_moments.py MANIFEST LOG...    (runs/counting-test/*/instances.log)

A moment is right if the thought about it is that of the manifest (`thoughts`), or is skipped where
there is none. Units of one moment of a second, as recipes/thinking/counting.toml has them.
"""

import math
import sys
from pathlib import Path

from proactivellm.output.log import Instance, read_log
from proactivellm.tasks.item import Item
from proactivellm.tasks.speech import read_manifest


def main(manifest: str, logs: list[str]) -> None:
    """Prints a row for each log, in percent."""
    items = read_manifest(manifest)
    print("| | moments right | ... where one comes | spoken where none does | all of a clip |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for log in logs:
        clips = [moments(items[instance.index], instance) for instance in read_log(log)]
        every = [pair for clip in clips for pair in clip]
        told = [want == got for want, got in every if want]
        spoken = [bool(got) for want, got in every if not want]
        right = [want == got for want, got in every]
        whole = [all(want == got for want, got in clip) for clip in clips]
        shares = " | ".join(f"{100 * sum(x) / len(x):.1f}" for x in (right, told, spoken, whole))
        print(f"| {Path(log).parent.name} | {shares} |")


def moments(item: Item, instance: Instance) -> list[tuple[str, str]]:
    """What is to be thought about each moment, and what was; ValueError if they are not as many."""
    wanted = [""] * math.ceil(item.duration_s or 0.0)
    for time_s, text in item.thoughts or ():
        place = min(max(math.ceil(time_s) - 1, 0), len(wanted) - 1)
        wanted[place] = f"{wanted[place]} {text}".strip()
    thought = [each.text.strip() for each in instance.thoughts or () if not each.stage]
    return list(zip(wanted, thought, strict=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
