"""What the dead tokens of a model that sees are worth, against as many others, drawn at random.

    proactivellm lens --model runs/shapes --clip runs/shapes-data/valid/000000.mkv ... (eight clips)
    python benchmarks/dead_tokens.py runs/shapes runs/shapes-data/test.jsonl runs/dead 240

answers the first 240 questions of a manifest offline, with all tokens, without the dead ones of
`video/lens.json`, and without about as many of the alive, drawn at random.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proactivellm import load
from proactivellm.evaluation.evaluate import evaluate
from proactivellm.evaluation.provenance import Conditions
from proactivellm.metrics.folders import folder_name
from proactivellm.modality.video.dropping import Dropper
from proactivellm.output.log import LOG_FILE, read_log
from proactivellm.tasks.jobs import read_jobs

POLICY = "offline"


class AsMany(Dropper):
    """Leaves each of the alive out with a chance such that as many go as are dead."""

    def __init__(self, dropper: Dropper, chance: float, rng: torch.Generator) -> None:
        self._dead, self._chance, self._rng = dropper, chance, rng

    def keep(self, features_TND: Tensor, patches_TNP: Tensor) -> Tensor:
        """Which tokens are kept: bool [T, N]."""
        alive_TN = self._dead.keep(features_TND, patches_TNP)
        return ~alive_TN | (torch.rand(alive_TN.shape, generator=self._rng) >= self._chance)


def main(folder: str, manifest: str, out: Path, number: int) -> None:
    """Prints the table."""
    model = load(folder)
    front_end: Any = model.front_end
    jobs = read_jobs("qa", manifest, None)[:number]
    front_end.watch(drop_tokens="dead")  # ValueError without a lens
    dead: Callable[[], Dropper] = front_end.dropper
    shares: dict[str, float] = {}
    ways: dict[str, Callable[[], Dropper | None]] = {
        "nothing": lambda: None,
        "the dead": dead,
        **{
            f"as many of the alive, draw {seed}": partial(_as_many, dead, shares, _rng(seed))
            for seed in range(3)
        },
    }
    print("| left out | kept share | exact match | same answer as with all |")
    print("| --- | ---: | ---: | ---: |")
    answers: dict[str, list[str]] = {}
    for name, dropper in ways.items():
        front_end.dropper = dropper
        place = out / name.replace(" ", "-").replace(",", "")
        (row,) = evaluate(model, jobs, [POLICY], place, conditions=Conditions(data=manifest))
        log = sorted(read_log(place / folder_name(POLICY) / LOG_FILE), key=lambda i: i.index)
        answers[name] = [instance.prediction for instance in log]
        kept = [1.0 if i.kept_share is None else i.kept_share for i in log]
        shares[name] = sum(kept) / len(kept)
        pairs = zip(answers[name], answers["nothing"], strict=True)
        same = 100 * sum(one == all_ for one, all_ in pairs) / len(log)
        print(f"| {name} | {shares[name]:.2f} | {row['EM']:.1f} | {same:.0f} % |")


def _as_many(
    dead: Callable[[], Dropper], shares: Mapping[str, float], rng: torch.Generator
) -> Dropper:
    return AsMany(dead(), 1 / shares["the dead"] - 1, rng)


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
