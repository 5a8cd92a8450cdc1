"""Loads weights of a model folder, and checks that all of them are there and fit.

transformers only warns: a weight that is missing is drawn at random, one that is not expected is
left out.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import is_peft_available

from proactivellm.backbone.folder import (
    ADAPTER_FILE,
    CONFIG_FILE,
    NO_KERNEL,
    broken_weights,
    check_json_files,
    read_object,
    reason,
    refusing,
    unknown_names,
)
from proactivellm.backbone.hub import find_folder
from proactivellm.backbone.precision import NEEDS_TORCHAO

_NAMED = 3  # weights in a message


def find_base(folder: Path, trust_remote_code: bool = False) -> Path | None:
    """The folder of the model that an adapter (PEFT) belongs to; None = it is no adapter."""
    if not (folder / ADAPTER_FILE).exists():
        return None
    what = cannot_load(folder)
    with refusing(what):
        name = read_object(folder / ADAPTER_FILE).get("base_model_name_or_path")
    if (folder / CONFIG_FILE).exists():
        raise ValueError(f"{what}: it holds a model and an adapter; give each its own folder")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what}: {ADAPTER_FILE} does not name the model it belongs to")
    _check_peft(f"{what}: it is an adapter of {name!r}")
    with refusing(f"{what}: it is an adapter of {name!r}"):
        base = find_folder(name, trust_remote_code)
    check_no_adapter(base, what)
    return base


def check_adapter(folder: Path) -> None:
    """Refuse (ValueError) a folder without an adapter; one that cannot be used for lack of peft."""
    if not (folder / ADAPTER_FILE).exists():
        raise ValueError(f"no adapter in {str(folder)!r}: there is no {ADAPTER_FILE}")
    _check_peft(f"{str(folder)!r} is an adapter")


def _check_peft(what: str) -> None:
    if not is_peft_available():
        raise ValueError(f"{what}, which needs peft: pip install 'proactivellm[train]'")


def check_no_adapter(base: Path, what: str) -> None:
    """Refuse (ValueError, "`what`: why") the folder of an adapter as what another is added to."""
    if (base / ADAPTER_FILE).exists():
        name = str(base)
        raise ValueError(f"{what}: it is an adapter of an adapter, {name!r}: merge that one first")


def load_lm(
    folder: Path,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    quantize: dict[str, Any],
) -> PreTrainedModel:
    """Load a causal LM, all of whose weights come from the folder.

    ValueError names what is broken, missing or does not fit.

    Args:
        dtype: of the weights; None = that of the file.
        quantize: further keyword arguments of `from_pretrained`.
    """

    def cause() -> str | None:
        return unknown_names(config) or broken_weights(folder)

    with refusing(cannot_load(folder), cause):
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype or "auto",
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # or they are told in a log, and not in the error
                **NO_KERNEL,
                **quantize,
            )
        except ImportError as error:
            if "torchao" in str(error):  # its weights are stored so
                raise ImportError(f"{reason(error)}; {NEEDS_TORCHAO}") from error
            raise
    check_all_loaded(info, cannot_load(folder))
    return model


def load_whole(kind: Any, folder: Path, what: str, **options: Any) -> Any:
    """A model of a class, all of whose weights are the folder's; ValueError "`what`: why" else."""
    with refusing(what, lambda: broken_weights(folder)):
        model, info = kind.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # or they are told in a log, and not in the error
            attn_implementation="sdpa",  # not what its config.json names, see NO_KERNEL
            **options,
        )
    check_all_loaded(info, what)
    return model


def add_adapter(model: PreTrainedModel, folder: Path, merge: bool = False) -> PreTrainedModel:
    """The model with the adapter of a folder in it; ValueError if that is broken or does not fit.

    Merged, the weights of the adapter are added to those of the model, which has none afterwards.
    """
    from peft import PeftConfig, PeftModel

    with refusing(cannot_load(folder), lambda: broken_weights(folder)):
        config = PeftConfig.from_pretrained(str(folder))
        adapted = PeftModel(model, config, autocast_adapter_dtype=False)
        missing, unexpected = adapted.load_adapter(
            str(folder), "default", torch_device=str(model.device), autocast_adapter_dtype=False
        )
    found = {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": ()}
    check_all_loaded(found, cannot_load(folder))
    if (folder / "generation_config.json").exists():  # with the end token that it was trained with
        model.generation_config = GenerationConfig.from_pretrained(str(folder))
    if merge:
        merged: PreTrainedModel = adapted.merge_and_unload()
        return merged
    model._hf_peft_config_loaded = True  # saved, it is the adapter
    return model


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapter in a model, alone, as PEFT loads it."""
    from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    named = {f"base_model.model.{key}": value.contiguous() for key, value in weights.items()}
    save_file(named, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    model.peft_config["default"].save_pretrained(folder)


def load_config(folder: Path, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration of a causal LM; ValueError if there is none, or it is broken."""
    what = cannot_load(folder)
    if not (folder / CONFIG_FILE).exists():
        raise ValueError(f"{what}: there is no {CONFIG_FILE} in it")
    check_json_files(folder)
    with refusing(f"{what}: {CONFIG_FILE}"):
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)


def check_all_loaded(info: dict[str, Any], what: str) -> None:
    """Refuse (ValueError, "`what`: why") a model part of which is not what the file has.

    `info` is what `from_pretrained(output_loading_info=True)` told; weights that the model class
    ties or does without are not in it.
    """
    faults = []
    if missing := info["missing_keys"]:
        faults.append(f"its files lack {_named(missing)}, which would be random")
    if unexpected := info["unexpected_keys"]:
        faults.append(f"the model has no place for {_named(unexpected)}")
    if wrong := sorted(info["mismatched_keys"]):
        name, stored, expected = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        shapes = f"{list(stored)} in the file and {list(expected)} by config.json"
        faults.append(f"{name} has the shape {shapes}{more}")
    faults += [" ".join(str(told).split()) for told in info.get("error_msgs", ())]
    if faults:
        raise ValueError(f"{what}: {'; '.join(faults)}")


def cannot_load(folder: Path) -> str:
    """How an error about the causal LM of a folder begins."""
    return f"cannot load a causal LM from {str(folder)!r}"


def _named(weights: Iterable[str]) -> str:
    names = sorted(weights)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} weight{'s' * (len(names) > 1)} ({', '.join(names[:_NAMED])}{more})"
