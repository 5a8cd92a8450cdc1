"""What the dead tokens of a model that sees are worth, against as many others, drawn at random.

    proactivellm lens --model runs/shapes --clip runs/shapes-data/valid/000000.mkv ... (eight clips)
    python benchmarks/dead_tokens.py runs/shapes runs/shapes-data/test.jsonl runs/dead 240

answers the first 240 questions of a manifest offline, with all tokens, without the dead ones of
`video/lens.json`, and without as many of the alive, moment by moment (as far as there are so many).
"""

import sys
from collections.abc import Callable
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
    """Leaves as many out of each moment as are dead, drawn from the alive."""

    def __init__(self, dropper: Dropper) -> None:
        self._dead = dropper
        self._rng = torch.Generator().manual_seed(0)

    def keep(self, features_TND: Tensor, patches_TNP: Tensor) -> Tensor:
        """Which tokens are kept: bool [T, N]."""
        alive_TN = self._dead.keep(features_TND, patches_TNP)
        kept_TN = torch.ones_like(alive_TN)
        for alive_N, kept_N in zip(alive_TN, kept_TN, strict=True):
            places = alive_N.nonzero()[:, 0]
            drawn = torch.randperm(len(places), generator=self._rng)
            kept_N[places[drawn[: int((~alive_N).sum())]]] = False
        return kept_TN


def main(folder: str, manifest: str, out: Path, number: int) -> None:
    """Prints the table."""
    model = load(folder)
    front_end: Any = model.front_end
    jobs = read_jobs("qa", manifest, None)[:number]
    front_end.watch(drop_tokens="dead")  # ValueError without a lens
    dead: Callable[[], Dropper] = front_end.dropper
    ways: dict[str, Callable[[], Dropper | None]] = {
        "nothing": lambda: None,
        "the dead": dead,
        "as many of the alive": lambda: AsMany(dead()),
    }
    print("| left out | kept share | exact match | same answer as with all |")
    print("| --- | ---: | ---: | ---: |")
    answers: dict[str, list[str]] = {}
    for name, dropper in ways.items():
        front_end.dropper = dropper
        place = out / name.replace(" ", "-")
        (row,) = evaluate(model, jobs, [POLICY], place, conditions=Conditions(data=manifest))
        log = sorted(read_log(place / folder_name(POLICY) / LOG_FILE), key=lambda i: i.index)
        answers[name] = [instance.prediction for instance in log]
        kept = [1.0 if i.kept_share is None else i.kept_share for i in log]
        pairs = zip(answers[name], answers["nothing"], strict=True)
        same = 100 * sum(one == all_ for one, all_ in pairs) / len(log)
        print(f"| {name} | {sum(kept) / len(kept):.2f} | {row['EM']:.1f} | {same:.0f} % |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
