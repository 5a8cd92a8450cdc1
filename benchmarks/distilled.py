"""Objectives of on-policy distillation beside each other: the same student, teacher, data, seeds.

    python benchmarks/distilled.py RECIPE.toml OUT --teacher MODEL [--layers 2 --warm-up 400]

RECIPE has the data, with [data.valid], and the student as backbone. With --layers the student has
the first layers of that backbone alone, and learns by the recipe's own objective for --warm-up
updates. Then each arm trains it with a loss of [distillation] and nothing else, on rollouts of its
own, in a process of its own. What is measured on rollouts of valid is the reverse KL to the
teacher, over all tokens of the vocabulary: by the same command, at a learning rate that changes
nothing. What is done is not done again.

Prints a Markdown table: KL in nats per token with its 95 % interval over batches, the median of the
gradient norms and their maximum over it, processor time of an update, the most memory it took.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from proactivellm.files.toml import load_toml
from proactivellm.modality.loading import load
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import TRAINING_LOG

ALL = 1_000_000  # more tokens than any vocabulary has
FULL = {"loss": "kl", "mix": 1.0, "top_k": ALL}  # the reverse KL over the whole vocabulary
ARMS: dict[str, dict[str, Any]] = {
    "full vocabulary": FULL,
    "top 32": FULL | {"top_k": 32},
    "forward, top 32": {"loss": "kl", "mix": 0.0, "top_k": 32},
    "log-ratio": {"loss": "log-ratio"},
    "power": {"loss": "power"},
    "power, alpha 1": {"loss": "power", "alpha": 1.0},
    "DIAL": {"loss": "log-ratio", "keep_share": 0.4},
}
QUIET = {"log_steps": 1, "eval_steps": 0}


def distilling(teacher: dict[str, Any], loss: dict[str, Any], every: int) -> dict[str, Any]:
    """The tables of a run that learns from a teacher alone; `every` as in its rollouts."""
    rollouts = {"every": every, "max_tokens": 48}
    return {
        "objective": {"batch_weight": 0.0, "mslm_weight": 0.0, "kl_weight": 0.0},
        "distillation": {"weight": 1.0} | teacher | loss | {"rollouts": rollouts},
        "output": QUIET,
    }


def main() -> None:
    """Trains and measures what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--teacher-layout", help="in place of the teacher's own")
    parser.add_argument("--layers", type=int)
    parser.add_argument(
        "--warm-up", type=int, default=400, help="updates of a student with --layers"
    )
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, help="of the arms, in place of the recipe's")
    parser.add_argument("--sources", type=int, default=128, help="of valid, to measure on")
    parser.add_argument("--arm", action="append", choices=list(ARMS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = load_toml(args.recipe, Recipe)
    size = recipe.optimisation.batch_size * recipe.optimisation.gradient_accumulation
    student = str(recipe.backbone.pretrained)
    if args.layers is not None:
        short = shortened(student, args.layers, args.out / "short")
        student = str(args.out / "student")
        trained(args.recipe, _sized(args.warm_up * size, short) | {"output": QUIET}, Path(student))
    teacher = {"teacher": args.teacher}
    teacher |= {"teacher_layout": args.teacher_layout} if args.teacher_layout else {}
    print("| objective | KL to the teacher | gradient norm | max / median | s an update | MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    kl = measured(args.recipe, teacher, (student, args.sources), args.out / "before")
    print(f"| the student as it was | {kl} | | | | |", flush=True)
    for name in args.arm or ARMS:
        folder = args.out / name.replace(", ", "-").replace(" ", "-")
        change = _sized(args.updates * size, student) | distilling(teacher, ARMS[name], every=1)
        if args.learning_rate is not None:
            change["optimisation"] = {"learning_rate": args.learning_rate}
        log, used = trained(args.recipe, change, folder)
        norms = [line["grad_norm"] for line in log if "grad_norm" in line]
        median = statistics.median(norms)
        model = (str(folder), args.sources)
        kl = measured(args.recipe, teacher, model, args.out / f"{folder.name}-measured")
        print(
            f"| {name} | {kl} | {median:.3g} | {max(norms) / median:.1f} "
            f"| {used['seconds'] / len(norms):.2f} | {used['mib']:.0f} |",
            flush=True,
        )


def _sized(samples: int, student: str) -> dict[str, Any]:
    return {"data": {"train": {"limit": samples}}, "backbone": {"pretrained": student}}


def measured(recipe: Path, teacher: dict[str, Any], on: tuple[str, int], out: Path) -> str:
    """The mean KL of a model to the teacher on so many sources, and its 95 % interval."""
    model, sources = on
    valid = load_toml(recipe, Recipe).data.valid
    if valid is None:
        raise SystemExit(f"{recipe} has no [data.valid] to measure on")
    source = valid.model_dump(exclude_defaults=True) | {"limit": sources}
    still = {"learning_rate": 1e-12, "gradient_accumulation": 1, "warmup_steps": 0}
    change = {
        "data": {"train": source},
        "backbone": {"pretrained": model},
        "optimisation": still,
    } | distilling(teacher, FULL, every=ALL)
    log, _ = trained(recipe, change, out)
    found = [line["taught"] for line in log if "taught" in line]
    within = 1.96 * statistics.stdev(found) / len(found) ** 0.5
    return f"{statistics.fmean(found):.3f} ± {within:.3f}"


def trained(
    recipe: Path, change: dict[str, Any], out: Path
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """The log of a run of `train`, and the processor time and memory that it took."""
    note = out.with_name(f"{out.name}.used.json")
    if not note.exists():
        over = out.with_name(f"{out.name}.toml")
        over.write_text("\n".join(toml_tables(change)) + "\n", encoding="utf-8")
        words = [sys.executable, "-m", "proactivellm", "train", str(recipe), str(over)]
        process = subprocess.Popen([*words, "--out", str(out)], stdout=sys.stderr)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{out.name}: the training failed, see above")
        seconds = usage.ru_utime + usage.ru_stime
        note.write_text(json.dumps({"seconds": seconds, "mib": usage.ru_maxrss / 1024}))
    log = (out / TRAINING_LOG).read_text(encoding="utf-8")
    return [json.loads(line) for line in log.splitlines()], json.loads(note.read_text())


def toml_tables(change: dict[str, Any], name: str = "") -> list[str]:
    """The lines of a TOML file."""
    flat = {key: value for key, value in change.items() if not isinstance(value, dict)}
    lines = [f"[{name}]"] if name and flat else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in flat.items()]
    for key, value in change.items():
        if isinstance(value, dict):
            lines += toml_tables(value, f"{name}.{key}" if name else key)
    return lines


@torch.no_grad()
def shortened(model: str, layers: int, out: Path) -> str:
    """A model with the first layers of another."""
    if not out.exists():
        loaded = load(model)
        decoder = loaded.model.get_decoder()
        decoder.layers = decoder.layers[:layers]
        config = loaded.model.config
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
        loaded.save_pretrained(out)
    return str(out)


if __name__ == "__main__":
    main()
