"""The loss that keeps the experts of a mixture in use, as the model family defines it.

transformers adds it in the forward of the whole model; here the decoder alone runs, over packed
views, so that it is asked for by hand. Without it, training lets experts fall out of use. Legend:
B = batch, S = tokens of the packed sequence, E = experts.
"""

import inspect
import sys
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

_FUNCTION = "load_balancing_loss_func"
_ARGUMENTS = ["gate_logits", "num_experts", "top_k", "attention_mask"]


def router_weight(model: PreTrainedModel, wish: float | None) -> float:
    """Weight of the router's loss.

    Args:
        model: a causal LM, with adapters or not.
        wish: of the recipe; None = what transformers would do: the configuration's
            `router_aux_loss_coef` if it has `output_router_logits`, else 0.

    Returns:
        The weight; 0 for a model without a router.

    Raises:
        ValueError: if a weight is wanted for a model without a router, or for one of a family whose
            loss is not known here.
    """
    model = _base(model)
    config = model.config.get_text_config()
    if wish == 0.0 or (wish is None and not getattr(config, "output_router_logits", False)):
        return 0.0
    function = getattr(sys.modules[type(model).__module__], _FUNCTION, None)
    if function is None or list(inspect.signature(function).parameters) != _ARGUMENTS:
        raise ValueError(
            f"model type {config.model_type!r} has no router, or none whose loss is known here: "
            "leave objective.router_weight out, or set it to 0"
        )
    if wish is not None:
        return wish
    names = ("router_aux_loss_coef", "aux_loss_coef")  # the second: JetMoE
    return float(next(getattr(config, name) for name in names if hasattr(config, name)))


def router_loss(model: PreTrainedModel, router_logits: Any, real_BS: Tensor) -> Tensor:
    """How unevenly the experts are used (Fedus et al. 2021, equations 4 to 6).

    Args:
        model: a causal LM, with adapters or not.
        router_logits: of the decoder, [B * S, E] per layer.
        real_BS: False at padding.

    Returns:
        A scalar.
    """
    model = _base(model)
    function = getattr(sys.modules[type(model).__module__], _FUNCTION)
    mixture: Any = model
    loss: Tensor = function(
        router_logits, mixture.num_experts, mixture.num_experts_per_tok, real_BS.long()
    )
    return loss


def _base(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_base_model() if hasattr(model, "peft_config") else model
