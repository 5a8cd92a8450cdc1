"""The one loader: a causal LM by name, with all that lies in its folder."""

from pathlib import Path

import torch

from proactivellm.backbone.bundled import DEFAULT_MODEL, bundled_models
from proactivellm.backbone.folder import CONFIG_FILE, read_object
from proactivellm.backbone.hub import find_folder
from proactivellm.backbone.precision import choose_dtype, parse_dtype, quantization_config
from proactivellm.backbone.pretrained import default_settings, load_pretrained
from proactivellm.backbone.prompt import StreamSettings, load_settings
from proactivellm.backbone.quiet import quiet_transformers
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.law import check_law
from proactivellm.modality.base import FrontEnd
from proactivellm.modality.kinds import KINDS, WHOLE_MODELS, kind_in
from proactivellm.modality.vocabulary import check_tokens


def load(
    name: str | Path = DEFAULT_MODEL,
    *,
    settings: StreamSettings | None = None,
    layout: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    quantization: str = "none",
    trust_remote_code: bool = False,
) -> StreamingCausalLM:
    """Load a model, checked against the streaming law, with its front end if there is one.

    ValueError if there is no such model, device or precision, its files are broken, lack weights or
    do not fit each other, or it cannot stream.

    Args:
        name: bundled model, folder, or hub id (`owner/name`, `owner/name@revision`).
        settings: override those of the folder; without any, the chat template is used.
        layout: name of a layout, with phi 0, in place of that in the settings.
        dtype: of the LM's weights, also by name; fp32 on CPU and that of the file elsewhere if left
            out.
        quantization: `int8` keeps the weights of the LM's linear layers in 8 bits (extra `quant`).
        trust_remote_code: run code that the model brings, with all rights of this process.
    """
    dtype = parse_dtype(dtype) if isinstance(dtype, str) else dtype
    _check_device(device)
    StreamSettings().with_layout(layout)  # an unknown one is told before anything is read
    dtype, quantize = choose_dtype(dtype, device, quantization), quantization_config(quantization)
    with quiet_transformers():
        folder = find_folder(name, trust_remote_code)
        front_end: FrontEnd | None = None
        if (model_type := _model_type(folder)) in WHOLE_MODELS:
            if quantize is not None:
                raise ValueError(f"quantization={quantization!r}: {model_type} is loaded as it is")
            load_whole = WHOLE_MODELS[model_type]()
            lm, tokenizer, stored, front_end = load_whole(folder, device=device, dtype=dtype)
        else:
            lm, tokenizer = load_pretrained(folder, device, dtype, quantize, trust_remote_code)
            stored = load_settings(folder) or default_settings(tokenizer)
        chosen = (settings or stored).with_layout(layout)
        model = StreamingCausalLM(lm, tokenizer, chosen)
        model.folder = folder
        check_tokens(model)
        check_law(model)
        if front_end is None and (kind := kind_in(folder)):
            width = lm.config.get_text_config().hidden_size
            front_end = KINDS[kind].front_end().load(folder, width, device)
        model.front_end = front_end
    return model


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
