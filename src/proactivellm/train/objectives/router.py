"""The loss that keeps the experts of a mixture in use, as the model family defines it.

transformers adds it in the forward of the whole model; here the decoder alone runs, over packed
views, so that it is asked for by hand. Without it, training lets experts fall out of use.
"""

import inspect
import sys
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.core.masks import PADDING
from proactivellm.files.toml import Strict
from proactivellm.files.values import Weight
from proactivellm.train.objectives.objective import Objective

if TYPE_CHECKING:
    from proactivellm.train.outputs import Outputs

_FUNCTION = "load_balancing_loss_func"
_ARGUMENTS = ["gate_logits", "num_experts", "top_k", "attention_mask"]


class RouterSettings(Strict):
    """The key of the router's loss."""

    # None = what transformers would do: the configuration's `router_aux_loss_coef` if it has
    # `output_router_logits`, else 0.
    router_weight: Weight | None = None


class Router(Objective):
    """How unevenly the experts are used (Fedus et al. 2021, equations 4 to 6)."""

    name = "router"
    Settings = RouterSettings
    weight_keys = ("router_weight",)
    part_names = ("router",)
    decoder_arguments = {"output_router_logits": True}

    @classmethod
    def make(cls, settings: RouterSettings, model: PreTrainedModel, front_end: Any) -> Self | None:
        model, wish = _base(model), settings.router_weight
        config = model.config.get_text_config()
        if wish == 0.0 or (wish is None and not getattr(config, "output_router_logits", False)):
            return None
        function = getattr(sys.modules[type(model).__module__], _FUNCTION, None)
        if function is None or list(inspect.signature(function).parameters) != _ARGUMENTS:
            raise ValueError(
                f"model type {config.model_type!r} has no router, or none whose loss is known "
                "here: leave objective.router_weight out, or set it to 0"
            )
        names = ("router_aux_loss_coef", "aux_loss_coef")  # the second: JetMoE
        if wish is None:
            wish = float(next(getattr(config, name) for name in names if hasattr(config, name)))
        return cls(RouterSettings(router_weight=wish)) if wish else None

    def forward(self, outputs: "Outputs") -> dict[str, Tensor]:
        mixture: Any = _base(outputs.learner.model)
        function = getattr(sys.modules[type(mixture).__module__], _FUNCTION)
        real_BS = (outputs.batch["view"] != PADDING).long()
        logits = outputs.decoded.router_logits
        loss = function(logits, mixture.num_experts, mixture.num_experts_per_tok, real_BS)
        # A mean over tokens already: each micro-batch by its share of the update's.
        loss = loss * (self.count(outputs.batch) / outputs.count(self))
        return {"loss": self.weights[0] * loss, "parts": loss.detach()[None]}


def _base(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_base_model() if hasattr(model, "peft_config") else model
