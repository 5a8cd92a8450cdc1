"""Which attention heads to trust: those whose attention foretells a change of mind.

For decisions along wait-k, the next token under the source read so far is compared with the one
under the whole source. Where the two differ (more reading would have changed the word) a good head
looks at the newest unit, or at many; where they agree, at an older one, or at one. Needs no labels.
Legend: L = layers, H = heads, P = probes, U = units.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from proactivellm.core import schedule
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.forced import forced_probes
from proactivellm.forward.probe import unit_attention_by_head
from proactivellm.policy.fixed import Offline
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, run_streams, source_turns

_NUM_LANES = 32
_NUM_HEADS = 4
_NUM_JOBS = 120
_LAGS = (1, 2, 3)
_SHARES = (0.2, 0.4, 0.6, 0.8)  # of the source, where the target may end before the source


def choose_heads(
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    concentrated: bool = False,
) -> tuple[tuple[int, int], ...]:
    """The (layer, head) pairs for an attention policy, best first, from the first dev jobs.

    Args:
        concentrated: judge heads by how much they look at one unit, instead of at the newest.

    Raises:
        ValueError: there is no source of one turn with two units.
    """
    shares: list[Tensor] = []  # each [L, H]: of the newest unit, or of all but the most attended
    changed: list[bool] = []
    offline = run_streams(
        model, Offline(), jobs[:_NUM_JOBS], limits=Limits(streams=_NUM_LANES), sampling=Sampling()
    )
    by_index = {job.index: job for job in jobs}
    for instance in offline:
        turns = source_turns(model, by_index[instance.index])
        if len(turns) != 1 or len(turns[0]) < 2:  # which turn wrote what is not known
            continue
        (units,) = turns
        for lag in _lags(model, len(units)):
            for share_LHU, will_change in _probe_along(model, units, instance.prediction, lag):
                one_LH = 1 - share_LHU.amax(-1) if concentrated else share_LHU[..., -1]
                shares.append(one_LH)
                changed.append(will_change)
    if not shares:
        raise ValueError("no heads can be chosen: every dev source is too short, or has pauses")
    share_LHP = torch.stack(shares, dim=-1)
    auc_LH = ranking_quality(share_LHP, torch.tensor(changed))
    best = auc_LH.flatten().topk(min(_NUM_HEADS, auc_LH.numel())).indices.tolist()
    num_heads = auc_LH.shape[1]
    return tuple((index // num_heads, index % num_heads) for index in best)


def ranking_quality(share_LHP: Tensor, changed_P: Tensor) -> Tensor:
    """Area under the ROC curve of "high share = will change", per head, [L, H].

    0.5 = no better than chance; 0.5 everywhere if only one outcome occurs.

    Args:
        share_LHP: share on the newest unit.
        changed_P: whether more reading changed the token, bool.
    """
    positives, negatives = int(changed_P.sum()), int((~changed_P).sum())
    if not positives or not negatives:
        return torch.full(share_LHP.shape[:2], 0.5)
    ranks = share_LHP.argsort(-1).argsort(-1).float() + 1
    # The statistic of Mann and Whitney, which is the area times the number of pairs.
    rank_sum = (ranks * changed_P).sum(-1)
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _probe_along(
    model: StreamingCausalLM, units: Sequence[Unit], target: str, lag: int
) -> Iterator[tuple[Tensor, bool]]:
    """Forces the offline target along wait-k.

    Yields, for each token while there is source to read, the attention of every head on the units
    read, [L, H, U], and whether more reading changed the token.
    """
    ids = model.tokenizer.encode(target, add_special_tokens=False)
    if not ids:
        return
    g = schedule.wait_k(lag, len(units), len(ids))
    source = [model.prompt.source_head, *(unit.tokens for unit in units)]
    probes = [(read, t) for t, read in enumerate(g) if read < len(units)]
    outputs = forced_probes(model, source, ids, probes, attention=True)
    for (read, t), output in zip(probes, outputs, strict=True):
        assert output.weights_LPHK is not None and output.unit_PK is not None
        share = unit_attention_by_head(output.weights_LPHK, output.unit_PK)
        yield share[:, :, 0, :read], int(output.logits_PV.argmax()) != ids[t]


def _lags(model: StreamingCausalLM, num_units: int) -> list[int]:
    """The lags to probe at; an answer that may come at any time is decided all along the source."""
    if not model.settings.early_end:
        return list(_LAGS)
    return sorted({max(1, round(share * num_units)) for share in _SHARES})
