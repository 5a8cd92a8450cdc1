"""The decision head of a model: linear, on its hidden state and a few scalars, in its folder.

It says how surely the model would still accept its next token if it had read the whole source.
Legend: B = lanes, D = model width, S = scalars.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from proactivellm.files.digest import digest_text
from proactivellm.files.replace import replacing
from proactivellm.policy.evidence import Confidence, Entropy, Evidence, Hidden, Seen

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

HEAD_FILE = "learned.safetensors"
TRAIN = "train one with `proactivellm calibrate --policy learned --source FILE`"
_VERSION = "1"
_ABOUT = ("label", "description", "num_sources", "auc")


class Scalar(NamedTuple):
    """An input of a head besides the hidden state: what it is made of, and how, float64 [B]."""

    evidence: tuple[Evidence, ...]
    of: Callable[[Seen], Tensor]


SCALARS: Mapping[str, Scalar] = {
    "entropy": Scalar((Entropy(),), lambda seen: seen[Entropy()].double()),
    "log_top1": Scalar((Confidence(),), lambda seen: seen[Confidence()].double().log()),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """Weights and what is known about them; `logit` is the use of them.

    `scalars` are names of SCALARS, `layer` that of the hidden state. The standardisation of inputs
    in training is part of the weights.
    """

    hidden_D: Tensor  # float64, as all weights
    scalar_S: Tensor
    bias: float
    scalars: tuple[str, ...]
    layer: int = -1
    about: Mapping[str, str]  # label, description of the sources, their number, AUC on some of them

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """What it looks at."""
        return evidence_of(self.scalars, self.layer)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides."""
        weights = torch.cat([self.hidden_D, self.scalar_S]).tolist()
        return digest_text([str([*weights, self.bias]), *self.scalars, str(self.layer)])

    def logit(self, seen: Seen) -> Tensor:
        """Logit of "acceptable", float64 [B]."""
        hidden_BD, scalar_BS = inputs_of(seen, self.scalars, self.layer)
        device = hidden_BD.device
        # Products and sums row by row: a matrix product may round with the number of rows.
        total_B = (hidden_BD * self.hidden_D.to(device)).sum(-1)
        return total_B + (scalar_BS * self.scalar_S.to(device)).sum(-1) + self.bias

    def check(self, model: StreamingCausalLM) -> None:
        """Raise ValueError where it is the head of a model of another width."""
        width = model.model.config.get_text_config().hidden_size
        if len(self.hidden_D) != width:
            raise ValueError(
                f"{HEAD_FILE} is of another model: it is for hidden states of width "
                f"{len(self.hidden_D)}, and those of the model have {width}; {TRAIN}"
            )

    def save(self, folder: Path) -> None:
        """Write it into the folder of its model."""
        tensors = {"hidden": self.hidden_D, "scalars": self.scalar_S}
        tensors["bias"] = torch.tensor([self.bias], dtype=torch.float64)
        about = {"version": _VERSION, "layer": str(self.layer), **self.about}
        about["scalars_json"] = json.dumps(self.scalars)
        with replacing(folder / HEAD_FILE) as new:
            new.write_bytes(save({k: v.float() for k, v in tensors.items()}, metadata=about))

    @classmethod
    def load(cls, folder: Path) -> Head:
        """Read the head of a model; ValueError if there is none, or it is malformed."""
        file = folder / HEAD_FILE
        if not file.is_file():
            raise ValueError(f"the model has no {HEAD_FILE}; {TRAIN}")
        try:
            with safe_open(file, "pt") as content:
                about = content.metadata() or {}
                tensors = {k: content.get_tensor(k).double() for k in content.keys()}
            head = cls(
                hidden_D=tensors["hidden"],
                scalar_S=tensors["scalars"],
                bias=float(tensors["bias"]),
                scalars=tuple(json.loads(about["scalars_json"])),
                layer=int(about["layer"]),
                about={key: about[key] for key in _ABOUT},
            )
            if not all(tensor.isfinite().all() for tensor in tensors.values()):
                raise ValueError("a weight is NaN or infinite")  # such a lane would never write
            fits = about["version"] == _VERSION and len(head.scalar_S) == len(head.scalars)
            if not fits or not SCALARS.keys() >= set(head.scalars):
                raise ValueError(f"version {about['version']}, inputs {', '.join(head.scalars)}")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{file} is no head of version {_VERSION} ({error}); {TRAIN}"
            ) from None
        return head


def evidence_of(scalars: Sequence[str], layer: int = -1) -> tuple[Evidence, ...]:
    """What a head with these inputs looks at."""
    found = [Hidden(layer), *(each for name in scalars for each in SCALARS[name].evidence)]
    return tuple(dict.fromkeys(found))


def inputs_of(seen: Seen, scalars: Sequence[str], layer: int = -1) -> tuple[Tensor, Tensor]:
    """Inputs of a head, [B, D] and [B, S] in float64: the same in training and in use."""
    hidden_BD = seen[Hidden(layer)].double()
    columns = [SCALARS[name].of(seen).to(hidden_BD.device) for name in scalars]
    return hidden_BD, torch.stack(columns, dim=-1) if columns else hidden_BD[:, :0]


def has_head(model: StreamingCausalLM) -> bool:
    """Whether a head is in use, or lies in the model's folder, fitting or not."""
    return model.head is not None or (
        model.folder is not None and (model.folder / HEAD_FILE).is_file()
    )


def head_of(model: StreamingCausalLM) -> Head:
    """The head of a model, read from its folder once; ValueError if it has none that fits."""
    if model.head is None:
        if model.folder is None:
            raise ValueError(f"the model has no folder that could hold a {HEAD_FILE}; {TRAIN}")
        model.head = Head.load(model.folder)
    head: Head = model.head
    head.check(model)
    return head
