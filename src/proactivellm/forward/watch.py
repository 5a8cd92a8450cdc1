"""One short forward of a model as it is, watched: which attention its class really does.

A configuration may name what the class ignores: a `sliding_window` left over from another family,
layer types that no layer asks for. The masks that transformers makes for a forward of its own are
what the model was trained with, so they are looked at, and not the settings that they are made of.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from proactivellm.backbone.decoder import decoder_of, layer_types
from proactivellm.forward.attention import streaming_attention

WATCHED = "proactivellm-watched"  # name of the attention function in transformers' registry
LONGEST = 1 << 18  # positions: a window as long as this is none
_NO_WINDOW = -1  # reach of a mask that is no window
_QUERIES = (1 << 24, (1 << 24) + 4321)  # places a mask is asked at: of a window, all look alike


@dataclass(frozen=True)
class WatchedAttention:
    """What the layers of a model do."""

    # Attention window per layer type (None = full attention), in the form that `masks.layer_masks`
    # takes: the single key "all" where one mask is for all layers.
    windows: dict[str, int | None]
    layer_types: tuple[str, ...]  # the key of `windows` that belongs to each layer
    hands_down: bool  # arguments of the decoder's forward reach the attention of every layer


def watch_attention(model: PreTrainedModel) -> WatchedAttention:
    """Run two tokens through a decoder, with the masks that transformers makes for them.

    Raises:
        ValueError: if the forward fails, or a layer attends to anything but all earlier positions
            or a window of them.
    """
    name = f"model type {model.config.get_text_config().model_type!r} cannot stream"
    reach: dict[int, set[int | None]] = {}
    reached: set[int] = set()
    try:
        with _watching(model, reach):
            _forward(model, reached)
    except Exception as error:  # whatever a family makes of inputs it was not written for
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{name}: {type(error).__name__}: {reason}") from error
    kinds = layer_types(model.config)
    layers = [reach.get(layer, {None}) for layer in range(len(kinds))]
    if any(_NO_WINDOW in windows or len(windows) > 1 for windows in layers):
        raise ValueError(
            f"{name}: its attention sees neither all earlier positions nor a window of them"
        )
    each = [windows.pop() for windows in layers]
    return WatchedAttention(*_by_type(name, kinds, each), hands_down=len(reached) >= len(kinds))


def _by_type(
    name: str, kinds: tuple[str, ...], windows: list[int | None]
) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Windows by layer type; one key for all, if they are all the same."""
    if len(set(windows)) <= 1:
        return {"all": windows[0] if windows else None}, ("all",) * len(kinds)
    found = dict(zip(kinds, windows, strict=True))
    if any(found[kind] != window for kind, window in zip(kinds, windows, strict=True)):
        raise ValueError(f"{name}: layers of one type have several windows ({windows})")
    return found, kinds


@contextmanager
def _watching(model: PreTrainedModel, reach: dict[int, set[int | None]]) -> Iterator[None]:
    """Masks that know how far they reach, and hooks that note which layer is given which."""

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and hasattr(value, "reach"):
                reach.setdefault(module.layer_idx, set()).add(value.reach)  # type: ignore[arg-type]

    AttentionInterface.register(WATCHED, _watched_attention)
    AttentionMaskInterface.register(WATCHED, _watched_mask)
    layers = [module for module in model.modules() if hasattr(module, "layer_idx")]
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    before = model.config._attn_implementation
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        model.set_attn_implementation(WATCHED)
        with torch.no_grad(), torch.random.fork_rng(devices):  # a model in training may drop out
            yield
    finally:
        model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()


def _forward(model: PreTrainedModel, reached: set[int]) -> None:
    decoder = decoder_of(model)
    accepted = inspect.signature(decoder.forward).parameters.values()
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted)
    # Families that attend by themselves may pass what they do not know to a function that refuses.
    watch = takes_more and getattr(model, "_supports_attention_backend", False)
    ids_BS = torch.tensor([[0, 1]], device=model.device)
    decoder(
        inputs_embeds=model.get_input_embeddings()(ids_BS),
        use_cache=False,
        **({"reached": reached} if watch else {}),
    )


def _watched_attention(
    module: nn.Module, *args: Any, reached: set[int] | None = None, **kwargs: Any
) -> tuple[Tensor, None]:
    if reached is not None:
        reached.add(module.layer_idx)  # type: ignore[arg-type]
    return streaming_attention(module, *args, **kwargs)


def _watched_mask(*args: Any, **kwargs: Any) -> Tensor:
    made = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask = sdpa_mask(*args, **kwargs | made)
    mask.reach = _reach(kwargs["mask_function"])
    return mask


def _reach(sees: Callable[..., Tensor]) -> int | None:
    """Number of positions that a query sees, its own included, by the rule that a mask is made of.

    None: all before it; _NO_WINDOW: another kind. The rule says of any two positions whether one
    sees the other, so that a window of thousands is known without a text of its length.
    """
    zero, distance = torch.tensor(0), torch.arange(LONGEST)
    counts = set()
    for place in _QUERIES:
        query = torch.tensor(place)
        behind = sees(zero, zero, query, query - distance).expand(LONGEST)
        count = int(behind.sum())
        if not behind[:count].all() or sees(zero, zero, query, query + 1 + distance).any():
            return _NO_WINDOW
        counts.add(count)
    if len(counts) > 1:  # chunks: who is seen depends on where the query is
        return _NO_WINDOW
    return None if counts == {LONGEST} else counts.pop()
