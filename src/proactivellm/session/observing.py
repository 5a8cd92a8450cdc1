"""What a policy is shown of a step: only what it asked to see.

Legend: P = lanes that probe in this step, V = vocabulary, U = units in view.
"""

import torch
from torch import Tensor

from proactivellm.model.lanes import StepOutput
from proactivellm.model.probe import unit_attention
from proactivellm.policy.base import Observation, Policy
from proactivellm.session.apart import out_of_memory, reason


def observe(
    policy: Policy,
    counters_4P: Tensor,
    logits_PV: Tensor,
    output: StepOutput,
    rows_P: Tensor | None,
) -> Observation:
    """What a policy asked to see, and nothing else.

    Args:
        policy: says what it needs.
        counters_4P: units read, words written, source finished, units dropped, int64.
        logits_PV: of its lanes.
        output: of the step.
        rows_P: its lanes among those of the output; None = all.

    Returns:
        The observation of these lanes.
    """
    units_P, words_P, finished_P, dropped_P = counters_4P
    needs = policy.needs
    probs_PV = logits_PV.softmax(-1) if needs & {"entropy", "confidence"} else None
    attention_PU = entropy_P = max_prob_P = None
    if "attention" in needs:
        assert output.weights_LPHK is not None and output.unit_PK is not None
        weights, units = output.weights_LPHK, output.unit_PK
        if rows_P is not None:
            weights, units = weights[:, rows_P], units[rows_P]
        heads = getattr(policy, "heads", None)
        attention_PU = unit_attention(weights, units, heads, output.num_units)
    if probs_PV is not None and "entropy" in needs:
        entropy_P = entropy(probs_PV, getattr(policy, "top", 0))
    if probs_PV is not None and "confidence" in needs:
        max_prob_P = probs_PV.max(-1).values
    return Observation(
        units_read_B=units_P,
        words_written_B=words_P,
        source_finished_B=finished_P.bool(),
        units_dropped_B=dropped_P,
        entropy_B=entropy_P,
        max_prob_B=max_prob_P,
        attention_BU=attention_PU,
    )


def ask(policy: Policy, seen: Observation) -> Tensor:
    """What a policy decides; what is no decision is an error.

    Args:
        policy: WRITE or READ.
        seen: what it is shown.

    Returns:
        bool [P], True = WRITE.

    Raises:
        ValueError: if it fails, or gives anything else; names the policy.
    """
    try:
        decisions = policy.decide(seen)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(f"policy {policy.name} could not decide: {reason(error)}") from error
    units_B = seen.units_read_B
    if not isinstance(decisions, Tensor):
        raise ValueError(f"policy {policy.name} decided {decisions!r}: it has to give a tensor")
    if decisions.shape != units_B.shape or decisions.dtype != torch.bool:
        raise ValueError(
            f"policy {policy.name} decided {decisions.dtype} {list(decisions.shape)}: it has to "
            f"give bool [{len(units_B)}], True = WRITE"
        )
    return decisions.to(units_B.device)


def entropy(probs_PV: Tensor, top: int = 0) -> Tensor:
    """Entropy of distributions.

    Args:
        probs_PV: probabilities, rows sum to 1.
        top: only over the most probable tokens, renormalised; 0 = all.

    Returns:
        nats, [P].
    """
    if top and top < probs_PV.shape[-1]:
        probs_PV = probs_PV.topk(top, dim=-1).values
        probs_PV = probs_PV / probs_PV.sum(-1, keepdim=True)
    return -torch.special.xlogy(probs_PV, probs_PV).sum(-1)
