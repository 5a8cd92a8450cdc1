"""ViCA: what is seen stays as it entered, and text looks at it in a few layers (arXiv 2602.07574).

A row of what is seen is frozen: no layer changes it. In the layers chosen it has keys and values,
made of the embedding by the norm and the projections of the layer; elsewhere text does not see it.
Positions stay, so that text has a gap where nothing is attended to. No model file is changed: hooks
keep the rows out of the modules that they do not need, and put zeros in the place of what those
would have added. Legend: T = tokens, n = rows that a module is given.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.backbone.decoder import decoder_of
from proactivellm.forward.attention import attend
from proactivellm.forward.seen import Asked, Control, Seen, StepControl, whole_mask

KEYS_AND_VALUES = ("k_proj", "v_proj")
OTHERS = ("q_proj", "o_proj")


class ViCA(Control):
    """Vision-only cross-attention in the given layers, from 0; none of them: text is blind.

    What is seen costs these layers two projections, and the others nothing.
    """

    name: ClassVar[str] = "vica"
    trains: ClassVar[bool] = True

    def __init__(self, layers: Iterable[int]) -> None:
        self.layers = frozenset(layers)
        self._handles: list[Any] = []
        self._text: Tensor | None = None  # rows that are text; None: all are

    def __str__(self) -> str:
        return f"{self.name}:{','.join(map(str, sorted(self.layers)))}"

    def attach(self, model: PreTrainedModel) -> None:
        """Puts hooks on the projections of every layer."""
        blocks = decoder_of(model).layers
        if beyond := [layer for layer in self.layers if layer >= len(blocks)]:
            raise ValueError(f"{self}: the model has {len(blocks)} layers, and no {min(beyond)}")
        found = [self._modules(block, number, model) for number, block in enumerate(blocks)]
        for module in (module for modules in found for module in modules):
            self._handles.append(module.register_forward_pre_hook(self._take))
            self._handles.append(module.register_forward_hook(self._put))

    def detach(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def begin(self, parts: Sequence[Seen], rows: Tensor) -> StepControl:
        """Notes which rows are frozen until the next forward: a checkpointed one runs twice."""
        self._text = ~rows if bool(rows.any()) else None
        return _Frozen(parts, self.layers)

    def _modules(self, block: nn.Module, number: int, model: PreTrainedModel) -> list[nn.Module]:
        """Those of a layer that rows of what is seen do without."""
        names = OTHERS if number in self.layers else OTHERS + KEYS_AND_VALUES
        attention = getattr(block, "self_attn", None)
        found = [getattr(attention, name, None) for name in names] + [getattr(block, "mlp", None)]
        if not all(isinstance(module, nn.Module) for module in found):
            raise ValueError(
                f"{self}: layers of model type {model.config.model_type!r} have no "
                f"self_attn.{', '.join(names)} and mlp of their own"
            )
        return [module for module in found if module is not None]

    def _take(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...] | None:
        return None if self._text is None else (args[0][self._text], *args[1:])

    def _put(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if self._text is None:
            return None
        whole = output.new_zeros(*self._text.shape, output.shape[-1])
        whole[self._text] = output
        return whole


class _Frozen(StepControl):
    """Text sees all in some layers, and text alone in the others."""

    def __init__(self, parts: Sequence[Seen], layers: frozenset[int]) -> None:
        super().__init__(parts)
        self._layers = layers

    def mask(self, layer: int, part: int, mask: Tensor | None) -> Tensor | None:
        """In the other layers, without what is seen; its own rows keep what they see."""
        seen = self.parts[part]
        if layer in self._layers or not bool(seen.entries_BK.any()):
            return mask
        return whole_mask(mask, seen) & ~seen.text_QK

    def attend(self, layer: int, part: int, asked: Asked) -> Tensor:
        """What rows of what is seen get is of no account: their output projection is left out."""
        seen = self.parts[part]
        query, key, value, mask, scores = asked
        if len(query) > 1 or not bool(seen.rows_BQ.any()):
            return attend(*asked)
        text = (~seen.rows_BQ[0]).nonzero()[:, 0]
        out = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1])
        if len(text):
            rows_mask = None if mask is None else mask[:, :, text]
            out[:, text] = attend(query[:, :, text], key, value, rows_mask, scores)
        return out
