"""The one loader: a causal LM by name, with all that lies in its folder."""

from pathlib import Path
from typing import Any, NamedTuple, Unpack

import torch

from proactivellm.backbone.bundled import DEFAULT_MODEL, bundled_models
from proactivellm.backbone.folder import CONFIG_FILE, read_object
from proactivellm.backbone.hub import find_folder
from proactivellm.backbone.precision import (
    WeightOptions,
    choose_dtype,
    parse_dtype,
    quantization_config,
)
from proactivellm.backbone.pretrained import default_settings, load_pretrained
from proactivellm.backbone.prompt import StreamSettings, load_settings
from proactivellm.backbone.quiet import quiet_transformers
from proactivellm.backbone.weights import (
    cannot_load,
    check_adapter,
    check_no_adapter,
    find_base,
)
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.controls import control_of
from proactivellm.forward.law import check_law
from proactivellm.modality.base import FrontEnd
from proactivellm.modality.kinds import KINDS, WHOLE_MODELS, kind_in
from proactivellm.modality.vocabulary import check_tokens


def load(
    name: str | Path = DEFAULT_MODEL,
    *,
    settings: StreamSettings | None = None,
    layout: str | None = None,
    adapter: str | Path | None = None,
    merge: bool = False,
    trust_remote_code: bool = False,
    **weights: Unpack[WeightOptions],
) -> StreamingCausalLM:
    """Load a model, checked against the streaming law, with its front end if there is one.

    ValueError if there is no such model, adapter, device or precision, its files are broken, lack
    weights or do not fit each other, or it cannot stream.

    Args:
        name: bundled, pulled or known model, folder, GGUF file, or hub id (`owner/name`,
            `owner/name@revision`); also of an adapter (PEFT), which names its model itself.
        settings: override those of the folder; without any, the chat template is used.
        layout: name of a layout, with phi 0, in place of that in the settings.
        adapter: folder or hub id of an adapter for the model. Settings, tokenizer and front end
            beside it stand for those of the model, calibration and learned head always do: the
            model's were measured without it.
        merge: add the adapter to the weights; left apart, it can be trained on, and saved alone.
        trust_remote_code: run code that the model brings, with all rights of this process.
        **weights: `device`, `dtype` and `quantization`, see `WeightOptions`.
    """
    how = _chosen(**weights)
    StreamSettings().with_layout(layout)  # an unknown one is told before anything is read
    with quiet_transformers():
        place = _find(name, adapter, trust_remote_code)
        lm, tokenizer, stored, front_end = _read(place, how, trust_remote_code, merge)
        model = StreamingCausalLM(lm, tokenizer, (settings or stored).with_layout(layout))
        model.folder = place.own
        check_tokens(model)
        check_law(model)
        if front_end is None:
            front_end = _front_end(place, lm.config.get_text_config().hidden_size, how.device)
        model.front_end = front_end
        model.look(control_of(front_end))
    return model


class _Place(NamedTuple):
    """Where a model lies: its folder, and that of the adapter that belongs into it."""

    base: Path
    adapter: Path | None

    @property
    def own(self) -> Path:
        """Where to look first for what lies beside weights."""
        return self.adapter or self.base


def _find(name: str | Path, adapter: str | Path | None, trust_remote_code: bool) -> _Place:
    folder = find_folder(name, trust_remote_code)
    if adapter is None:
        base = find_base(folder, trust_remote_code)
        return _Place(base or folder, folder if base else None)
    place = find_folder(adapter, trust_remote_code)
    check_adapter(place)
    check_no_adapter(folder, cannot_load(place))
    return _Place(folder, place)


class _How(NamedTuple):
    """`WeightOptions`, checked: what transformers takes."""

    device: str
    dtype: torch.dtype | None
    quantize: Any


def _chosen(
    device: str = "cpu", dtype: torch.dtype | str | None = None, quantization: str = "none"
) -> _How:
    dtype = parse_dtype(dtype) if isinstance(dtype, str) else dtype
    _check_device(device)
    dtype = choose_dtype(dtype, device, quantization)
    quantize = quantization_config(quantization, dtype)
    return _How(device, dtype, quantize)


def _read(
    place: _Place, how: _How, trust_remote_code: bool, merge: bool
) -> tuple[Any, Any, Any, Any]:
    """LM, tokenizer, settings, and the front end where it is part of the LM's own files."""
    if (model_type := _model_type(place.base)) in WHOLE_MODELS:
        if how.quantize is not None:
            raise ValueError(f"{model_type} is loaded as it is: not quantised")
        load_whole = WHOLE_MODELS[model_type]()
        whole: tuple[Any, Any, Any, Any] = load_whole(
            place.base, adapter=place.adapter, merge=merge, device=how.device, dtype=how.dtype
        )
        return whole
    lm, tokenizer = load_pretrained(
        place.base, *how, trust_remote_code, adapter=place.adapter, merge=merge
    )
    stored = load_settings(place.own) or load_settings(place.base) or default_settings(tokenizer)
    return lm, tokenizer, stored, None


def _front_end(place: _Place, width: int, device: str) -> FrontEnd | None:
    for folder in filter(None, place[::-1]):  # that beside the adapter first
        if kind := kind_in(folder):
            return KINDS[kind].front_end().load(folder, width, device)
    return None


def front_end_of(model: StreamingCausalLM, kind: str) -> FrontEnd:
    """The front end of a model for a kind of payload; ValueError if it has none for it."""
    if model.front_end is not None and model.front_end.kind == kind:
        return model.front_end
    able = [name for name, folder in bundled_models().items() if kind_in(folder) == kind]
    raise ValueError(
        f"the model {str(model.folder)!r} does not take {kind}: it has no folder {kind}/; give "
        f"one that does (bundled: {', '.join(able) or 'none'}), or train one by a recipe"
    )


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"cannot use device {device}: {str(error).splitlines()[0]}") from None


def _model_type(folder: Path) -> str:
    try:
        return str(read_object(folder / CONFIG_FILE).get("model_type"))
    except ValueError:
        return ""
