"""Hashes and settings of all that an evaluation depends on: model, conditions, recordings.

They are noted beside every log (`run.json`), so that a log is continued only with the same.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from proactivellm import __version__
from proactivellm.backbone.hub import name_of
from proactivellm.files.digest import digest_text
from proactivellm.files.note import check_note, merge_note, read_note
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.counting import Counting
from proactivellm.modality.media_digest import digest_media
from proactivellm.policy.base import Policy
from proactivellm.policy.head import head_of
from proactivellm.policy.learned import Learned
from proactivellm.session.limits import Sight
from proactivellm.session.window import Window
from proactivellm.stream import DEFAULT_RATE_WPM, Job

RUN_FILE = "run.json"
# Told, but not compared: a model may move, and a request is compared by the policy it came to.
_TOLD = ("model", "data", "request", "made_with")
_OF_EACH = ("recordings", "schedules")  # by instance: a longer test set adds to them
_PASSING = ("transformers_version", "_name_or_path", "_commit_hash", "dtype", "torch_dtype")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the instances of a log have in common, besides model and policy."""

    rate_wpm: float = DEFAULT_RATE_WPM  # words per minute on the clock of `elapsed`
    window: Window | None = None  # what a stream keeps in view; everything if None
    step_s: float | None = None  # what each step takes on that clock; as measured if None
    depth: int | None = None  # of the reasoning of a model that thinks; as it decides if None
    sight: Sight | None = None  # how far back a stream of video sees; to the beginning if None
    # A log may be scored in any way, so that this is no condition of continuing one.
    counting: Counting = Counting()
    data: str | None = None  # what the test set is called, for headings


def run_inputs(
    model: StreamingCausalLM, conditions: Conditions, jobs: Sequence[Job]
) -> dict[str, Any]:
    """What a run depends on besides its policy and the texts, which the log has; ready for JSON.

    Reads the files of the jobs' recordings.
    """
    method = getattr(getattr(model.model.config, "quantization_config", None), "quant_method", None)
    methods = [] if method is None else [str(getattr(method, "value", method))]
    if model.kv is not None:
        methods.append(f"keys and values in {model.kv}")
    versions = {"proactivellm": __version__, "transformers": transformers.__version__}
    return {
        "model": _name(model),
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "quantization": ", ".join(methods) or None,
        **_noted(conditions),
        **({} if model.front_end is None else model.front_end.conditions),
        **model_inputs(model),
        "recordings": _recordings(jobs),
        "schedules": {str(job.index): job.policy.spec for job in jobs if job.policy is not None},
        "made_with": {**versions, "torch": torch.__version__},
    }


def _noted(conditions: Conditions) -> dict[str, Any]:
    """All but the counting; notes of runs that set none of them do not have the last three."""
    named = {key: value for key, value in asdict(conditions).items() if key != "counting"}
    unset = [key for key in ("step_s", "depth", "sight") if named[key] is None]
    return {key: value for key, value in named.items() if key not in unset}


def noted(model: StreamingCausalLM, policy: Policy, request: str) -> dict[str, Any]:
    """How a policy was asked for, and what it takes from the model that its spec does not tell."""
    head = {"head": head_of(model).digest} if isinstance(policy, Learned) else {}
    return {"request": request, **head}


def calibration_inputs(
    model: StreamingCausalLM, jobs: Sequence[Job], policies: Sequence[str], grid: object
) -> dict[str, Any]:
    """What a calibration table depends on; ready for JSON."""
    texts = ([job.name, str(job.reference), job.task, *(job.answers or ())] for job in jobs)
    heard = digest_media(job.media for job in jobs)
    return {
        **model_inputs(model),
        "dev": digest_text([*heard, *(digest_text(each) for each in texts)]),
        "policies": list(policies),
        "grid": str(grid),
    }


def model_inputs(model: StreamingCausalLM) -> dict[str, Any]:
    """What a model is, by content, wherever it lies: digests and settings by name."""
    # Only what differs from the defaults: a release of transformers may add keys.
    config = {**model.model.config.to_diff_dict()}
    generation = getattr(model.model, "generation_config", None)
    config["generation"] = {} if generation is None else generation.to_diff_dict()
    found = {
        "weights": digest_weights(model.model),
        "tokenizer": _tokenizer(model),
        "configuration": digest_text([json.dumps(_lasting(config), sort_keys=True, default=str)]),
        "streaming": model.settings.model_dump(mode="json"),
    }
    if model.front_end is not None:
        weights = digest_weights(model.front_end)
        found["front_end"] = digest_text([weights, model.front_end.identity])
    return found


def digest_weights(module: nn.Module) -> str:
    """SHA-256 of a module's weights as they are in memory, in hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            _update(found, name, tensor)
    return found.hexdigest()


def check_run(folder: Path, inputs: Mapping[str, Any], continues: bool) -> None:
    """Notes what the log of a policy depends on, or compares with what was noted if it `continues`.

    Raises a ValueError if the log is of another run.
    """
    file = folder / RUN_FILE
    if not continues:
        check_note(file, inputs, continues=False)
        return
    check_note(file, compared(inputs, read_note(file)), continues=True)
    merge_note(file, inputs)


def compared(inputs: Mapping[str, Any], noted: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that must be as an earlier run, perhaps over fewer instances, noted them."""
    wanted = {key: value for key, value in inputs.items() if key not in _TOLD}
    for key in _OF_EACH:
        known = noted.get(key, {})
        wanted[key] = {index: value for index, value in inputs[key].items() if index in known}
    return wanted


def _name(model: StreamingCausalLM) -> str:
    return model.model.config.name_or_path if model.folder is None else name_of(model.folder)


def _recordings(jobs: Sequence[Job]) -> dict[str, str]:
    heard = [job for job in jobs if job.media]
    digests = digest_media(job.media for job in heard)
    return {str(job.index): digest for job, digest in zip(heard, digests, strict=True)}


def _tokenizer(model: StreamingCausalLM) -> str:
    """What the tokenizer does; padding and truncation of its last call are not part of it."""
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest_text([json.dumps(tokenizer.get_vocab(), sort_keys=True)])
    kept = json.loads(backend.to_str())
    kept = {key: value for key, value in kept.items() if key not in ("padding", "truncation")}
    return digest_text([json.dumps(kept, sort_keys=True)])


def _lasting(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what tells who saved it, where, and in which precision."""
    return {
        key: _lasting(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _PASSING
    }


def _update(found: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Adds a tensor to a hash; of one that is made of others, such as a quantised one, those."""
    if hasattr(tensor, "__tensor_flatten__"):
        for inner in tensor.__tensor_flatten__()[0]:
            _update(found, f"{name}.{inner}", getattr(tensor, inner))
        return
    found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():  # as bytes: numpy has no bfloat16
        found.update(flat.view(torch.uint8).numpy().data)
