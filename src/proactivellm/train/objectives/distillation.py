"""SPSD, synchronised privileged self-distillation: a partial view learns from the full one.

Legend: R = target rows, K = tokens of the KL, V = vocabulary. Row r of every view predicts the same
token, so that rows of teacher (full source) and student (partial source) correspond one to one.
"""

from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor

from proactivellm.files.values import Count, Weight
from proactivellm.train.objectives.divergence import with_rest
from proactivellm.train.objectives.objective import RowObjective, ViewRows
from proactivellm.train.schedules import ViewSettings


def top_k_kl(teacher_RV: Tensor, student_RV: Tensor, top_k: int, direction: str) -> Tensor:
    """The divergence of partial view and full view, summed over rows, nats.

    Over the teacher's `top_k` most probable tokens, and all others as one outcome: never above the
    divergence over the whole vocabulary, and 0 where the student is the teacher.

    Args:
        teacher_RV: log-probabilities with the full source visible; no gradient flows into them.
        student_RV: log-probabilities under a partial schedule.
        direction: "forward" is `KL(P_full || P_partial)` (ProactiveLLM), which wants the student to
            cover the teacher; "reverse" is `KL(P_partial || P_full)`.
    """
    log_p_RK, index_RK = teacher_RV.detach().topk(min(top_k, teacher_RV.shape[-1]), dim=-1)
    log_q_RK = student_RV.gather(-1, index_RK)
    if index_RK.shape[-1] < teacher_RV.shape[-1]:
        log_p_RK, log_q_RK = with_rest(log_p_RK), with_rest(log_q_RK)
    if direction == "reverse":
        return (log_q_RK.exp() * (log_q_RK - log_p_RK)).sum()
    return (log_p_RK.exp() * (log_p_RK - log_q_RK)).sum()


class DistillationSettings(ViewSettings):
    """The keys of SPSD."""

    kl_weight: Weight = 0.1  # lambda
    kl_top_k: Count = 100  # teacher tokens in the KL
    kl_direction: Literal["forward", "reverse"] = "forward"

    @model_validator(mode="after")
    def _kl_has_views(self) -> Self:
        if self.kl_weight and not self.num_partial:
            raise ValueError(
                "num_partial = 0 leaves no view for the KL: set kl_weight to 0, or num_partial to 1"
            )
        return self


class Distillation(RowObjective):
    """The mean over partial views of their divergence from the full one."""

    name = "distillation"
    Settings = DistillationSettings
    weight_keys = full_keys = ("kl_weight",)
    part_names = ("kl",)

    def of_partial(self, rows: ViewRows) -> Tensor:
        assert rows.full_RV is not None
        top_k, direction = self.settings.kl_top_k, self.settings.kl_direction
        return top_k_kl(rows.full_RV, rows.log_p_RV, top_k, direction)[None]
