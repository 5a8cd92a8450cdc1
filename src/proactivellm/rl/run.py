"""A reinforcement as a folder: the model with its new head, the curve, what to go on from."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from proactivellm.backbone.folder import refusing
from proactivellm.evaluation.provenance import model_inputs
from proactivellm.files.digest import digest_text, model_files
from proactivellm.files.growing import open_lines
from proactivellm.files.lock import locked
from proactivellm.files.note import check_note
from proactivellm.files.replace import replacing, replacing_in, write_text
from proactivellm.policy.calibration import CALIBRATION_FILE, Calibration
from proactivellm.policy.head import Head
from proactivellm.policy.learned import Learned
from proactivellm.report.progress import Progress
from proactivellm.rl.reinforce import Reinforcement
from proactivellm.rl.reward import QUALITY_OF

CURVE_FILE = "reinforcement.jsonl"  # a line for each step, see `Reinforcement.advance`
_NOTE_FILE = "reinforcement.json"
_STATE_FILE = "reinforcement.pt"


def reinforce(
    run: Reinforcement,
    out: Path,
    *,
    description: str = "train",
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Carry out a reinforcement, going on from what `out` holds, and write the model to `out`.

    Points of `learned` are left out of its calibration table: they are of the other head.

    Args:
        description: of the sources, noted in the head.
        progress: called after every step.

    Returns:
        The curve, a step each.

    Raises:
        ValueError: the model has no folder, `out` is that folder or holds another run, or another
            process works there.
    """
    folder = run.model.folder
    if folder is None:
        raise ValueError("the model has no folder of which a copy could be made")
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} is the folder of the model itself: choose another --out")
    with locked(out):
        curve = _resume(run, out)  # before there are adapters: it compares the model
        write_text(out / CURVE_FILE, "".join(json.dumps(line) + "\n" for line in curve))
        with open_lines(out / CURVE_FILE, "a") as file:
            assert file is not None
            while run.step < run.plan.num_steps:
                curve.append(run.advance())
                # The line first: a state without its line would leave a gap in the curve.
                file.write(json.dumps(curve[-1]) + "\n")
                file.flush()
                with replacing(out / _STATE_FILE) as new:
                    torch.save(run.state_dict(), new)
                if progress:
                    progress("reinforcement", run.step, run.plan.num_steps)
        _write_model(run, replace(run.head, about=_about(run, description)), out)
    return curve


def _inputs(run: Reinforcement) -> dict[str, Any]:
    """What a run depends on, ready for JSON; a finished one may be given more steps."""
    texts = [part for job in run.jobs for part in (job.source, str(job.reference), job.task)]
    steps = {key: value for key, value in asdict(run.plan).items() if key != "num_steps"}
    found = {"policy": run.policy.spec, "head": run.start.digest, "data": digest_text(texts)}
    return {**model_inputs(run.model), **found, "plan": steps}


def _resume(run: Reinforcement, out: Path) -> list[dict[str, float]]:
    """Take up the state in a folder, if there is one; gives the curve so far."""
    state_file = out / _STATE_FILE
    check_note(out / _NOTE_FILE, _inputs(run), continues=state_file.is_file())
    if not state_file.is_file():
        return []
    with refusing(f"cannot continue from {state_file}"):
        run.load_state_dict(torch.load(state_file, weights_only=True))
        lines = (out / CURVE_FILE).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[: run.step]]


def _about(run: Reinforcement, description: str) -> dict[str, str]:
    plan = run.plan
    gate = "no gate" if plan.tolerance is None else f"tolerance {plan.tolerance:g}"
    quality = QUALITY_OF[run.jobs[0].task]
    return {
        "label": f"reward: {quality} - {plan.latency_weight:g} {plan.latency}, {gate}",
        "description": description,
        "num_sources": str(len(run.sources)),
        "auc": "not measured",
    }


def _write_model(run: Reinforcement, head: Head, out: Path) -> None:
    """Writes a copy of the model with that head; adapters are merged, and the run is used up."""
    folder = run.model.folder
    assert folder is not None
    with replacing_in(out) as new:
        for file in model_files(folder):
            if run.adapted is not None and file.parent == folder and _is_weights(file):
                continue  # written anew below, perhaps in other shards
            place = new / file.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        if run.adapted is not None:
            merged: Any = run.adapted
            merged.merge_and_unload().save_pretrained(new)
        head.save(new)
        if (folder / CALIBRATION_FILE).is_file():
            table = Calibration.load(folder)
            points = tuple(point for point in table.points if point.policy != Learned.name)
            default = table.default
            if default is not None and default.partition(":")[0] == Learned.name:
                default = None
            table.model_copy(update={"points": points, "default": default}).save(new)


def _is_weights(file: Path) -> bool:
    return file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json")
