"""What the packed objective is compared with: one ordinary forward per view, plain torch losses.

Written from the definitions (DESIGN sections 1 and 2) without the library's masks, packing, row
selection or losses: masks are loops over tokens, the interleaved layout is a stock causal forward
over the tokens in the order of their arrival.
"""

import torch
import torch.nn.functional as F
from tests.two_groups import head_of, target_of, units_of
from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.core.packing import Sample
from proactivellm.core.schedule import Schedule


def flat_source(sample: Sample) -> tuple[list[int], list[int]]:
    """Source tokens and the unit of each."""
    pairs = [(token, u) for u, unit in enumerate(units_of(sample)) for token in unit]
    return [token for token, _ in pairs], [u for _, u in pairs]


def target_rows(sample: Sample, g: Schedule) -> tuple[list[int], list[int]]:
    """Target inputs and the number of units each may see; the prefix sees as much as row 0."""
    tokens = [*head_of(sample), *target_of(sample)[:-1]]
    units = [g[0]] * (len(head_of(sample)) - 1) + list(g)
    return tokens, units


def grouped_logits(model: PreTrainedModel, sample: Sample, g: Schedule, phi: int) -> Tensor:
    """Logits of the N predicting rows: a forward over [source | target] with a mask of loops."""
    source, unit_of = flat_source(sample)
    target, units = target_rows(sample, g)
    size = len(source) + len(target)
    position = [*range(len(source)), *range(phi, phi + len(target))]
    full = torch.zeros(size, size, dtype=torch.bool)
    for q in range(size):
        for k in range(q + 1):
            if q < len(source) or k >= len(source):
                full[q, k] = True
            else:
                full[q, k] = unit_of[k] <= units[q - len(source)]
    config = model.config
    masks = {"full_attention": full[None, None]}
    if getattr(config, "sliding_window", None):
        where = torch.tensor(position)
        near = (where[:, None] - where[None, :]).abs() < config.sliding_window
        masks["sliding_attention"] = (full & near)[None, None]
    if getattr(config, "layer_types", None):
        mask = {kind: masks[kind] for kind in set(config.layer_types)}
    else:
        mask = masks.get("sliding_attention", masks["full_attention"])
    output = model(
        input_ids=torch.tensor([[*source, *target]]),
        position_ids=torch.tensor([position]),
        attention_mask=mask,
        use_cache=False,
    )
    return output.logits[0, -len(target_of(sample)) :]


def interleaved_logits(model: PreTrainedModel, sample: Sample, g: Schedule) -> Tensor:
    """Logits of the N predicting rows: a stock forward over the stream as it arrives (phi 0)."""
    source, unit_of = flat_source(sample)
    target, units = target_rows(sample, g)
    stream, where = [], []
    read = 0
    for token, visible in zip(target, units, strict=True):
        while read < len(source) and unit_of[read] <= visible:
            stream.append(source[read])
            read += 1
        where.append(len(stream))
        stream.append(token)
    logits = model(input_ids=torch.tensor([stream]), use_cache=False).logits[0]
    return logits[torch.tensor(where[-len(target_of(sample)) :])]


def reference_losses(
    logits_WNV: list[list[Tensor]], labels: list[list[int]], top_k: int, smoothing: float
) -> Tensor:
    """L_batch, L_MSLM and KL, means over the target tokens of all samples.

    Args:
        logits_WNV: per view (the full one first), per sample, logits [N, V].
        labels: target tokens per sample.
        top_k: teacher tokens in the KL.
        smoothing: label smoothing.
    """
    label = torch.tensor([token for tokens in labels for token in tokens])
    views = [torch.cat(samples) for samples in logits_WNV]
    entropies = [F.cross_entropy(view, label, label_smoothing=smoothing) for view in views]
    teacher = F.softmax(views[0].detach(), -1)
    kept = teacher >= teacher.topk(min(top_k, teacher.shape[-1])).values[:, -1:]
    rest = (teacher * ~kept).sum(-1)  # the other tokens, as one
    divergences = []
    for view in views[1:]:
        student = F.softmax(view, -1)
        terms = teacher * (teacher / student).log() * kept
        other = (student * ~kept).sum(-1)
        divergences.append((terms.sum(-1) + rest * (rest / other).log()).mean())
    partial = torch.stack(entropies[1:]).mean()
    return torch.stack([entropies[0], partial, torch.stack(divergences).mean()])
