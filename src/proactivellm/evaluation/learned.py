"""Trains the head of `learned`: would the model still accept its token, had it read everything?

The labels are the model's own, so that sources are all it takes. Partial views and the full view of
what it wrote stand in one packed forward. Legend: R = rows that predict, N = examples, V =
vocabulary, D = model width, F = inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from proactivellm.core import schedule
from proactivellm.core.layout import TARGET
from proactivellm.core.packing import IGNORE, pack
from proactivellm.evaluation.calibrate import prototype
from proactivellm.evaluation.logistic import fit
from proactivellm.evaluation.own_writes import OwnWrites, own_writes
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import StepOutput
from proactivellm.forward.packed import packed_hidden
from proactivellm.policy.evidence import Rows, Seen
from proactivellm.policy.head import SCALARS, Head, evidence_of, has_head, inputs_of
from proactivellm.policy.learned import Learned
from proactivellm.report.progress import Progress
from proactivellm.session.outcome import Outcomes
from proactivellm.stream import Job

_BATCH = 8  # sources in a packed forward


@dataclass(frozen=True, kw_only=True)
class HeadPlan:
    """How a head is trained."""

    # acceptable: the full view gives the token at least `share` of what its favourite gets;
    # agree: it is the favourite
    label: Literal["acceptable", "agree"] = "acceptable"
    share: float = 0.3
    scalars: tuple[str, ...] = tuple(SCALARS)
    num_sources: int = 400  # at most, the first ones
    num_views: int = 3  # partial views of each
    seed: int = 0


class Examples(NamedTuple):
    """Decisions that a policy would be asked for, and what it should have said."""

    inputs_NF: Tensor  # hidden state, then scalars, float64
    wanted_N: Tensor  # bool


def train_head(
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    plan: HeadPlan | None = None,
    *,
    description: str = "dev",
    num_lanes: int = 32,
    progress: Progress | None = None,
) -> Head:
    """A head for `model`, from sources alone; the same again for the same sources and plan.

    ValueError where the layout encodes anew at each READ, or sources show too little.
    """
    plan = plan or HeadPlan()
    if model.layout.reencoded:
        raise ValueError(
            f"a head needs several views in one forward, which layout {model.layout.name!r} has "
            "not: take entropy, confidence or attention"
        )
    jobs = jobs[: plan.num_sources]
    written = own_writes(model, jobs, plan.num_views, num_lanes, plan.seed)
    parts: list[Examples] = []
    for start in range(0, len(written), _BATCH):
        parts += examples(model, written[start : start + _BATCH], plan)
        if progress:
            progress("learned: head", len(parts), len(written))
    if not parts:
        raise ValueError("no head can be trained: every source is too short, or has pauses")
    found = fit(
        torch.cat([part.inputs_NF for part in parts]),
        torch.cat([part.wanted_N for part in parts]),
        torch.cat([torch.full((len(p.wanted_N),), i) for i, p in enumerate(parts)]),
    )
    cut = len(found.weight_F) - len(plan.scalars)
    label = plan.label if plan.label == "agree" else f"acceptable, {plan.share:g}"
    return Head(
        hidden_D=found.weight_F[:cut].float().double(),  # as it will be read again
        scalar_S=found.weight_F[cut:].float().double(),
        bias=float(torch.tensor(found.bias, dtype=torch.float32)),
        scalars=plan.scalars,
        about={
            "label": label,
            "description": description,
            "num_sources": str(len(parts)),
            "auc": f"{found.auc:.3f}",
        },
    )


def ensure_head(
    model: StreamingCausalLM,
    policies: Sequence[str],
    jobs: Sequence[Job],
    folder: Path,
    *,
    anew: bool = False,
    **how: Any,
) -> Head | None:
    """Train the head that one of `policies` needs, and store it in `folder`.

    Nothing is done, and None returned, where none needs it, or the model has one and not `anew`.
    ValueError if one of the policies cannot be calibrated.

    Args:
        policies: as `calibrate` takes them.
        how: as for `train_head`; `model` uses the head from now on.
    """
    needed = Learned.name in [prototype(text).name for text in policies]
    if not needed or (has_head(model) and not anew):
        return None
    head = train_head(model, jobs, **how)
    head.save(folder)
    model.head = head
    return head


@torch.inference_mode()
def examples(
    model: StreamingCausalLM, written: Sequence[OwnWrites], plan: HeadPlan
) -> Iterator[Examples]:
    """The decisions in the partial views of each source."""
    packed = []
    for one in written:
        full = schedule.offline(one.sample.num_units, len(one.words))
        views = [{TARGET: g} for g in (full, *one.schedules)]
        packed.append(pack(one.sample, views, model.layout))
    hidden_BSD = packed_hidden(model, packed, [one.media for one in written])
    outcomes = Outcomes(model)
    for one, columns, hidden_SD in zip(written, packed, hidden_BSD, strict=True):
        view_S, label_S = torch.tensor(columns.view), torch.tensor(columns.label)
        rows = [
            ((view_S == view) & (label_S != IGNORE)).nonzero()[:, 0]
            for view in range(len(one.schedules) + 1)
        ]
        probs_RV = model.project(hidden_SD[rows[0]]).softmax(-1)
        parts = [
            _of_view(model, outcomes, one, g, hidden_SD[rows[view]], probs_RV, plan)
            for view, g in enumerate(one.schedules, start=1)
        ]
        inputs_NF, wanted_N = zip(*parts, strict=True)
        yield Examples(torch.cat(inputs_NF).cpu(), torch.cat(wanted_N).cpu())


def _of_view(
    model: StreamingCausalLM,
    outcomes: Outcomes,
    one: OwnWrites,
    g: Sequence[int],
    hidden_RD: Tensor,
    probs_RV: Tensor,
    plan: HeadPlan,
) -> Examples:
    """What a session would have asked about in a view; `probs_RV` are those of the full view."""
    logits_RV = model.project(hidden_RD)
    token_R, held = logits_RV.argmax(-1), not outcomes.early_end
    asked = []
    for r, token in enumerate(token_R.tolist()):
        ends = token in outcomes.end_ids
        point = outcomes.starts[token] or not one.words[r] or outcomes.decides[token]
        if g[r] < one.sample.num_units and point and not (ends and held):
            asked.append(r)
    rows = torch.tensor(asked, dtype=torch.long, device=hidden_RD.device)
    token_N, logits_NV = token_R[rows], logits_RV[rows]
    if held:
        logits_NV[:, outcomes.end_ids] = float("-inf")  # as a session shows it
    output = StepOutput(
        logits_PV=logits_NV, hidden_PD=hidden_RD[rows], weights_LPHK=None, unit_PK=None, num_units=0
    )
    looked, starts = Rows(output, token_N), [outcomes.starts[t] for t in token_N.tolist()]
    begun = [one.words[r] for r in asked]
    words = [n - (not s and n > 0) for n, s in zip(begun, starts, strict=True)]
    seen = Seen(
        units_read_B=torch.tensor([g[r] for r in asked], dtype=torch.long),
        units_in_view_B=torch.tensor([g[r] for r in asked], dtype=torch.long),
        words_written_B=torch.tensor(words, dtype=torch.long),
        evidence={each: each.of(looked) for each in evidence_of(plan.scalars)},
    )
    chosen_N = probs_RV[rows].gather(-1, token_N[:, None])[:, 0]
    share = 1.0 if plan.label == "agree" else plan.share
    wanted_N = chosen_N >= share * probs_RV[rows].amax(-1)
    return Examples(torch.cat(inputs_of(seen, plan.scalars), dim=-1), wanted_N)
