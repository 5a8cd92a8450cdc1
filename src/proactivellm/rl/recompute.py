"""What the policy saw in its decisions, computed again in one masked forward of whole trajectories.

A row that WROTE is one of the target under the schedule that came about. A probe that ended in READ
left no entry behind: it is a row of its own at the end, which sees what it saw then and which no
other row sees. Legend: B = trajectories, S = tokens of a packed sequence, N = decisions, D = model
width, F = inputs of the head.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.core.masks import visibility
from proactivellm.core.packing import IGNORE, Packed, arrival_stamp, pack
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import StepOutput
from proactivellm.forward.packed import as_tensors, masked_hidden
from proactivellm.policy.evidence import Rows, Seen
from proactivellm.policy.head import evidence_of, inputs_of
from proactivellm.rl.rollout import Trajectory
from proactivellm.train.rows import rows_within
from proactivellm.train.samples import prompted

_WRITTEN = 0  # the view of what was written; those of probes follow
_LOGITS_MIB = 1024  # that logits may take at once


def recompute(
    model: StreamingCausalLM,
    trajectories: Sequence[Trajectory],
    scalars: Sequence[str],
    layer: int = -1,
) -> list[Tensor]:
    """Inputs [N, F] of a head for the decisions of each trajectory, float64; gradients may flow.

    They are those of the rollout up to rounding (the law). ValueError where the layout encodes anew
    at each READ.
    """
    if model.layout.reencoded:
        raise ValueError(
            f"layout {model.layout.name!r} encodes the target anew at each READ, which is no one "
            "sequence: decisions cannot be computed again"
        )
    packed, rows = zip(*(_pack(model, each) for each in trajectories), strict=True)
    columns = as_tensors(packed)
    inside_BS = columns["view"] > _WRITTEN  # rows of probes, which see what was written as well
    through = {**columns, "view": columns["view"].masked_fill(inside_BS, _WRITTEN)}
    allowed_B1SS = visibility(model.layout, columns, columns)
    allowed_B1SS |= visibility(model.layout, through, columns)
    hidden_BSD = masked_hidden(model, columns, allowed_B1SS)
    one = partial(_inputs, model, scalars, layer)
    vocabulary = model.model.config.get_text_config().vocab_size
    chunk = rows_within(_LOGITS_MIB, vocabulary, num_views=1)
    again = torch.is_grad_enabled() and sum(map(len, rows)) > chunk  # for the backward pass
    found = []
    for trajectory, hidden_SD, row_N in zip(trajectories, hidden_BSD, rows, strict=True):
        parts = zip(
            hidden_SD[row_N].split(chunk),
            trajectory.units_read_N.split(chunk),
            trajectory.words_written_N.split(chunk),
            strict=True,
        )
        made = [
            checkpoint(one, *part, use_reentrant=False) if again else one(*part) for part in parts
        ]
        found.append(torch.cat(made))
    return found


def _pack(model: StreamingCausalLM, one: Trajectory) -> tuple[Packed, list[int]]:
    """A trajectory as one sequence, and the row of each decision."""
    layout = model.layout
    units = [unit.token_ids for unit in one.source.units]
    end = min(model.end_token_ids, default=0)  # only predicted, never fed
    sample = prompted(units, [*one.tokens, end], model.prompt)
    read, target = sample.read[SOURCE], sample.written[TARGET]
    schedule = [*one.schedule, len(one.source.units)]
    packed = pack(sample, [{TARGET: schedule}], layout)
    written = [row for row, label in enumerate(packed.label) if label != IGNORE]
    num_read = list(accumulate(map(len, read)))
    ids, rows = [*target.head, *one.tokens], list[int]()
    decisions = [one.units_read_N.tolist(), one.tokens_written_N.tolist(), one.write_N.tolist()]
    for view, (units, tokens, write) in enumerate(zip(*decisions, strict=True), start=1):
        if write:
            rows.append(written[tokens])
            continue
        # Rows inside the head see what the first token's sees, and were fed again with it.
        last = len(target.head) - 1 + tokens
        first = last if tokens else 0
        numbers = layout.numbers({SOURCE: num_read[units], TARGET: first})
        (positions,) = layout.positions(layout.index[TARGET], last + 1 - first, numbers).tolist()
        for order, position in zip(range(first, last + 1), positions, strict=True):
            packed.input_ids.append(ids[order])
            packed.group.append(layout.index[TARGET])
            packed.arrival.append(arrival_stamp(layout, layout.index[TARGET], units, order))
            packed.view.append(view)
            packed.position.append(position)
            packed.label.append(IGNORE)
        rows.append(len(packed.view) - 1)
    return packed, rows


def _inputs(
    model: StreamingCausalLM,
    scalars: Sequence[str],
    layer: int,
    hidden_ND: Tensor,
    units_read_N: Tensor,
    words_written_N: Tensor,
) -> Tensor:
    logits_NV = model.project(hidden_ND)
    if not model.settings.early_end:  # the source was open: as a session shows it
        ends = torch.tensor(sorted(model.end_token_ids), dtype=torch.long, device=hidden_ND.device)
        logits_NV = logits_NV.index_fill(-1, ends, float("-inf"))
    output = StepOutput(
        logits_PV=logits_NV, hidden_PD=hidden_ND, weights_LPHK=None, unit_PK=None, num_units=0
    )
    looked = Rows(output, logits_NV.argmax(-1))
    seen = Seen(
        units_read_B=units_read_N,
        units_in_view_B=units_read_N,
        words_written_B=words_written_N,
        evidence={each: each.of(looked) for each in evidence_of(scalars, layer)},
    )
    return torch.cat(inputs_of(seen, scalars, layer), dim=-1)
