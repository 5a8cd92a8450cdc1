"""Weights of a model folder, all of which must be there and fit: transformers only warns.

A weight that is missing is drawn at random, one that is not expected is left out.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import find_adapter_config_file, is_peft_available

from proactivellm.model.folder import (
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
from proactivellm.model.precision import NEEDS_TORCHAO

_NAMED = 3  # weights in a message


def find_base(source: str) -> str | None:
    """The model that an adapter (PEFT) belongs to.

    Args:
        source: folder or hub id.

    Returns:
        Folder or hub id; None if the source is a model of its own.

    Raises:
        ValueError: if the adapter does not say, or peft is not installed.
    """
    what, folder = cannot_load(source), Path(source)
    if folder.is_dir() and not (folder / ADAPTER_FILE).exists():
        return None
    with refusing(what):
        found = find_adapter_config_file(source)
        base = None if found is None else read_object(Path(found)).get("base_model_name_or_path")
    if found is None:
        return None
    if (folder / CONFIG_FILE).exists():
        raise ValueError(f"{what}: it holds a model and an adapter; give each its own folder")
    if not isinstance(base, str) or not base:
        raise ValueError(f"{what}: {ADAPTER_FILE} does not name the model it belongs to")
    if not is_peft_available():
        needs = "which needs peft: pip install 'proactivellm[train]'"
        raise ValueError(f"{what}: it is an adapter of {base!r}, {needs}")
    if (Path(base) / ADAPTER_FILE).exists():
        raise ValueError(f"{what}: it is an adapter of an adapter, {base!r}: merge that one first")
    return base


def load_lm(
    source: str,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    quantize: dict[str, Any],
) -> PreTrainedModel:
    """Load a causal LM.

    Args:
        source: folder or hub id.
        config: its configuration.
        dtype: of the weights; None = that of the file.
        trust_remote_code: run code that the source brings.
        quantize: further keyword arguments of `from_pretrained`.

    Returns:
        The model, all of whose weights come from the source.

    Raises:
        ValueError: naming what is broken, missing or does not fit.
    """
    folder = Path(source) if Path(source).is_dir() else None

    def cause() -> str | None:
        return unknown_names(config) or broken_weights(folder)

    with refusing(cannot_load(source), cause):
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                source,
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
    check_all_loaded(info, cannot_load(source))
    return model


def add_adapter(model: PreTrainedModel, source: str) -> None:
    """Load an adapter into the model that it belongs to.

    Args:
        model: gets it.
        source: folder or hub id of the adapter.

    Raises:
        ValueError: naming what is broken, missing or does not fit.
    """
    with refusing(cannot_load(source), lambda: broken_weights(Path(source))):
        info = model.load_adapter(source)
    check_all_loaded(info.to_dict(), cannot_load(source))


def load_config(source: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Load the configuration of a causal LM.

    Args:
        source: folder or hub id.
        trust_remote_code: run code that the source brings.

    Returns:
        The configuration.

    Raises:
        ValueError: if there is none, or it does not fit its model type.
    """
    what = cannot_load(source)
    if Path(source).is_dir():
        if not (Path(source) / CONFIG_FILE).exists():
            raise ValueError(f"{what}: there is no {CONFIG_FILE} in it")
        check_json_files(Path(source))
    with refusing(f"{what}: {CONFIG_FILE}"):
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)


def check_all_loaded(info: dict[str, Any], what: str) -> None:
    """Refuse a model part of which is not what the file has.

    Args:
        info: what `from_pretrained(output_loading_info=True)` told; weights that the model class
            ties or does without are not in it.
        what: could not be loaded; begins the line.

    Raises:
        ValueError: naming the weights.
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


def cannot_load(source: str) -> str:
    """How an error about a causal LM begins.

    Args:
        source: folder or hub id.
    """
    return f"cannot load a causal LM from {source!r}"


def _named(weights: Iterable[str]) -> str:
    names = sorted(weights)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} weight{'s' * (len(names) > 1)} ({', '.join(names[:_NAMED])}{more})"
