"""A reinforcement as a folder: the model as it has become, the curve, what to go on from."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from proactivellm.backbone.card import write_card_after
from proactivellm.backbone.folder import refusing
from proactivellm.evaluation.provenance import model_inputs
from proactivellm.files.digest import digest_text, model_files
from proactivellm.files.growing import open_lines
from proactivellm.files.lock import locked
from proactivellm.files.note import check_note
from proactivellm.files.replace import replacing, replacing_in, write_text
from proactivellm.report.progress import Progress
from proactivellm.rl.plan import Reinforcement
from proactivellm.train.saving import saving

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

    Args:
        description: of the sources, noted with what was learnt.
        progress: called after every step.

    Returns:
        The curve, a step each.

    Raises:
        ValueError: the model has no folder, `out` is that folder or holds another run, another
            process works there, a step comes to what is no number, or something cannot be saved.
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
            while not run.ended:
                curve.append(run.advance())
                # The line first: a state without its line would leave a gap in the curve.
                file.write(json.dumps(curve[-1]) + "\n")
                file.flush()
                with saving(out / _STATE_FILE), replacing(out / _STATE_FILE) as new:
                    torch.save(run.state_dict(), new)
                if progress:
                    progress("reinforcement", run.step, run.plan.num_steps)
        with saving(out):
            _write_model(run, out, description)
    return curve


def _inputs(run: Reinforcement) -> dict[str, Any]:
    """What a run depends on, ready for JSON; a finished one may be given more steps."""
    texts = [part for job in run.jobs for part in (job.source, str(job.reference), job.task)]
    steps = {key: value for key, value in asdict(run.plan).items() if key != "num_steps"}
    return {**model_inputs(run.model), **run.inputs, "data": digest_text(texts), "plan": steps}


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


def _write_model(run: Reinforcement, out: Path, description: str) -> None:
    """Writes a copy of the model as it is now; adapters are merged, and the run is used up."""
    folder = run.model.folder
    assert folder is not None
    with replacing_in(out) as new:
        for file in model_files(folder):
            if run.changes_model and file.parent == folder and _is_weights(file):
                continue  # written anew below, perhaps in other shards
            place = new / file.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        if run.changes_model:
            learnt: Any = run.adapted
            model = run.model.model if learnt is None else learnt.merge_and_unload()
            model.save_pretrained(new)
        run.save_beside(new, description)
        steps = f"{run.step} {'step' if run.step == 1 else 'steps'}"
        about = f"{run.told} It took {steps} on {len(run.sources)} sources of {description}."
        write_card_after(new, out.resolve().name, folder, f"**Reinforced.** {about}")


def _is_weights(file: Path) -> bool:
    return file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json")
