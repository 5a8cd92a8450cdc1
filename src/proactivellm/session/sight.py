"""Bounded sight: how far back a stream sees of its source, and what it recalls of the rest.

For video without an end (ViCoStream, arXiv 2606.19849). Every token sees the prompt, with the
question in it, its own unit and so many units before it; what is written sees besides the units
that are most like the question, and a question that was asked meanwhile. A stream so bounded has
the logits of one masked forward with that visibility. Entries that nothing to come sees leave the
cache, positions stay: time and memory of a step depend on what is seen, not on how long the stream
is. Legend: U = units, D = LM width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from proactivellm.core.layout import SOURCE
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import Reach
from proactivellm.session.lane import Planned
from proactivellm.session.limits import Sight
from proactivellm.session.residence import Residence
from proactivellm.session.state import SessionState


@dataclass
class _Past:
    """What is known of one stream beside its cache."""

    # Entries of units that are out of sight, by their number.
    away: dict[int, dict[str, Any]] = field(default_factory=dict)
    descriptors: dict[int, Tensor] = field(default_factory=dict)  # mean embeddings [D]
    asked: dict[int, tuple[int, ...]] = field(default_factory=dict)  # ids of units that ask
    _all_UD: Tensor | None = None  # of `described`

    def copied(self) -> "_Past":
        """Another one, which shares tensors alone: nothing changes those."""
        return _Past({**self.away}, {**self.descriptors}, {**self.asked}, self._all_UD)

    def describe(self, unit: int, mean_D: Tensor) -> None:
        """Notes what is like a unit; one that was taken back may come again, and be another."""
        before = self.descriptors.get(unit)
        if before is not None and not torch.equal(before, mean_D):
            self._all_UD = None
        self.descriptors[unit] = mean_D

    def described(self, device: torch.device) -> Tensor:
        """All descriptors [U, D], in the order of their units; more are made than looked at."""
        known = 0 if self._all_UD is None else len(self._all_UD)
        if known != len(self.descriptors):
            new_UD = torch.stack([*self.descriptors.values()][known:]).to(device)
            self._all_UD = new_UD if self._all_UD is None else torch.cat([self._all_UD, new_UD])
        assert self._all_UD is not None
        return self._all_UD


class Horizon:
    """Keeps the lanes of an engine within their sight."""

    def __init__(self, sight: Sight, model: StreamingCausalLM, residence: Residence) -> None:
        self.sight = sight
        self.model = model
        self.residence = residence
        self._past: dict[int, _Past] = {}

    def check(self, state: SessionState, units: Sequence[Unit]) -> None:
        """Raise ValueError if units are to be recalled, and nothing was asked, nor will be.

        `units` are the next ones; the first of all says by `holds` that a question comes.
        """
        begun = state.units_read or state.ahead or state.pending
        to_come = begun or not units or units[0].holds or units[0].asks
        if self.sight.recall and not (state.question or to_come):
            raise ValueError("units are recalled that are like a question: ask one first")

    def forget(self, lane: int) -> None:
        """Drop what is known of a lane's stream."""
        self._past.pop(lane, None)

    def past(self, lane: int) -> _Past:
        """What is known of a lane's stream, as it is now."""
        return self._past.get(lane, _Past()).copied()

    def remember(self, lane: int, past: _Past) -> None:
        """Know this of a lane's stream."""
        self._past[lane] = past.copied()

    def adjust(self, planned: Planned) -> bool:
        """Let entries leave and come back before a step; if any did, it is to be planned anew."""
        state, lane = planned.state, planned.input.lane
        past = self._past.setdefault(lane, _Past())
        self._describe(past, planned)
        oldest = state.units_read - self.sight.units + 1  # that anything to come sees
        recalled = {unit for unit in self.recalled(planned) if unit < oldest}
        if not state.counts[SOURCE]:
            return False
        kinds_4K = self.residence.cache.entry_kinds(lane)
        is_source = kinds_4K[0] == self.model.layout.index[SOURCE]
        units = torch.where(is_source, kinds_4K[2], 0).tolist()
        held = set(units) - {0}
        leaving = {unit for unit in held if unit < oldest} - recalled
        coming = [unit for unit in sorted(recalled - held) if unit in past.away]
        if leaving and not coming and not held - leaving and 0 not in units:
            return False  # something has to stay, from which positions go on
        if not leaving and not coming:
            return False
        self._move(state, lane, units, leaving, coming)
        return True

    def reach(self, planned: Planned) -> Planned:
        """The plan of a step, with what its tokens see."""
        reach = Reach(self.sight.units, planned.units_read, tuple(sorted(self.recalled(planned))))
        return replace(planned, input=replace(planned.input, reach=reach))

    def recalled(self, planned: Planned) -> set[int]:
        """The units that ask, and those most like the question, where a step writes."""
        past, device = self._past[planned.input.lane], self.model.device
        asked = {unit: ids for unit, ids in past.asked.items() if unit <= planned.units_read}
        question = [*planned.state.question, *(token for ids in asked.values() for token in ids)]
        # Those of units that are read ahead come last.
        numbers = [unit for unit in past.descriptors if unit <= planned.units_read]
        if not self.sight.recall or planned.input.probe is None or not (numbers and question):
            return {*asked}
        query_D = self.model.parts.embed(torch.tensor(question, device=device)).float().mean(0)
        described_UD = past.described(device)[: len(numbers)]
        similarity_U = torch.cosine_similarity(described_UD, query_D[None], dim=-1)
        best = similarity_U.topk(min(self.sight.recall, len(numbers))).indices.tolist()
        return {numbers[index] for index in best} | {*asked}

    def _describe(self, past: _Past, planned: Planned) -> None:
        """Note what asks, and the mean of what may be recalled."""
        first = planned.state.units_read + planned.state.ahead + 1
        taken = [unit for unit in (*planned.units, *planned.ahead) if not unit.is_end]
        past.asked |= {n: unit.token_ids for n, unit in enumerate(taken, first) if unit.asks}
        if not self.sight.recall:
            return
        for piece in planned.pieces:
            if isinstance(piece.tokens, Tensor) and piece.grid is not None:
                rows = torch.from_numpy(piece.grid.rows_in_space()).to(piece.tokens.device)
                seen = piece.tokens[rows, : self.model.parts.embed.weight.shape[1]]
            elif isinstance(piece.tokens, Tensor):
                seen = piece.tokens
            else:
                continue
            if len(seen):
                past.describe(piece.unit, seen.float().mean(0).cpu())

    def _move(
        self,
        state: SessionState,
        lane: int,
        units: Sequence[int],
        leaving: set[int],
        coming: Sequence[int],
    ) -> None:
        """Entries change places; the number of source tokens follows, and positions stay."""
        cache, layout, past = self.residence.cache, self.model.layout, self._past[lane]
        numbers = layout.numbers(state.counts, cache.reached[lane])
        if self.sight.beyond == "host":
            for unit in leaving - past.away.keys():
                places = [place for place, of in enumerate(units) if of == unit]
                past.away[unit] = _on_host(cache.entries(lane, self._tensor(places)))
        before = cache.lengths[lane]
        if coming:
            cache.append(lane, _together([past.away[unit] for unit in coming]))
        came = range(before, cache.lengths[lane])
        stay = [place for place, unit in enumerate(units) if unit not in leaving]
        # What was written stays at the end, where it may be taken back.
        groups = cache.entry_kinds(lane)[0].tolist()
        source = layout.index[SOURCE]
        last = max((i for i, place in enumerate(stay) if groups[place] == source), default=-1) + 1
        cache.order(lane, self._tensor([*stay[:last], *came, *stay[last:]]))
        state.counts[SOURCE] += cache.lengths[lane] - before
        cache.reached[lane] = layout.reached(numbers, state.counts)

    def _tensor(self, places: Sequence[int]) -> Tensor:
        return torch.tensor(places, dtype=torch.long, device=self.model.device)


def _on_host(entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "keys": [keys.cpu() for keys in entries["keys"]],
        "values": [values.cpu() for values in entries["values"]],
        "kinds": entries["kinds"],
    }


def _together(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of several units, as of one: a device is asked once for each layer."""
    layers = {
        name: [torch.cat(parts) for parts in zip(*(each[name] for each in entries), strict=True)]
        for name in ("keys", "values")
    }
    return {**layers, "kinds": torch.cat([each["kinds"] for each in entries], dim=1)}


def check_sight(sight: Sight | None, model: StreamingCausalLM, bounded: bool) -> None:
    """Raises ValueError if a model or other limits do not go with bounded sight.

    Args:
        bounded: whether there is a window, or a limit to the entries of the cache.
    """
    if sight is None:
        return
    if bounded:
        raise ValueError("bounded sight needs neither a window nor a limit of entries: give one")
    if model.speculation is not None:
        raise ValueError("bounded sight and speculation do not go together: leave one out")
    if model.layout.reencoded:
        raise ValueError(f"the layout {model.layout.name} encodes anew: give another, or all sight")
