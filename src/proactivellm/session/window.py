"""Bounded streams: what a lane forgets, so that memory and time per step stay constant.

When source or target outgrow their window, the oldest half is dropped and what is kept is fed
again from position 0: a sliding window with recomputation (Xiao et al. 2024, arXiv 2309.17453),
recomputed once per half window instead of at every token. Positions and their distances therefore
stay in the range of the window, in every model family, and the first kept entries are the sinks
that attention falls on, as in training. The prompt always stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from proactivellm.backbone.prompt import PromptIds
from proactivellm.session.history import SeenIds
from proactivellm.session.state import SessionState


class NotKept(ValueError):
    """A stream that was saved without a window cannot go on with one."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """How much of a stream stays in view.

    Attributes:
        source: source tokens at most, prompt included; half stay when they are outgrown.
        target: target tokens at most, head included; likewise.
        sinks: first source units and first target tokens that stay for good, besides the prompt.
    """

    source: int = 512
    target: int = 512
    sinks: int = 0

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}={getattr(self, name)}: a window holds at least 2 tokens")
        if self.sinks < 0:
            raise ValueError(f"sinks={self.sinks}: give 0 or more")

    def check_prompt(self, prompt: PromptIds) -> None:
        """Raise ValueError if prompt and sinks fill half of the window: every step would drop."""
        sides = (
            ("source", self.source, prompt.source_head),
            ("target", self.target, prompt.target_head),
        )
        for name, size, head in sides:
            kept = len(head) + self.sinks
            if 2 * kept >= size:
                raise ValueError(
                    f"a window of {size} {name} tokens is too small for a prompt of {len(head)} "
                    f"and {self.sinks} sinks: give at least {2 * kept + 1}"
                )


def check_kept(state: SessionState) -> None:
    """Raise NotKept if a stream read features while it had no window: one would feed them again."""
    kept = sum(len(piece.tokens) for piece in state.source)
    if kept != state.num_in_view:
        raise NotKept(
            f"the stream has {state.num_in_view} source tokens in view and kept {kept} of them: "
            "features are kept only where there is a window from the start; go on without one"
        )


def outgrown(state: SessionState, window: Window, incoming: int = 0) -> bool:
    """Whether a stream that is about to read so many source tokens has more than its window."""
    if state.draft:
        return False
    return state.num_in_view + incoming > window.source or len(state.target) > window.target


def trim(state: SessionState, window: Window, incoming: int, starts: Sequence[bool]) -> bool:
    """Drop the oldest of a stream that would outgrow its window; what stays is to be fed again.

    Target tokens go with the source they were written from: those predicted when nothing that
    stays had been read. A draft is never cut.

    Args:
        incoming: source tokens about to be read.
        starts: by token id, whether it begins a word; the target is cut before one.

    Returns:
        Whether anything was dropped: the cache of the lane is void then.
    """
    if not outgrown(state, window, incoming):
        return False
    source, target = state.num_in_view + incoming, len(state.target)
    units = target_cut = 0
    if source > window.source:
        room = window.source - max(incoming, window.source // 2)
        units = _drop_units(state, room, window.sinks)
        if units:
            state.written_at_drop = state.num_written
            target_cut = sum(g <= state.dropped_units + window.sinks for g in state.delays)
    if target > window.target:
        target_cut = max(target_cut, target - state.num_head - window.target // 2)
    tokens = _drop_tokens(state, target_cut, window.sinks, starts)
    if not units and not tokens:
        return False
    state.forget()
    state.seen = SeenIds()
    return True


def _drop_units(state: SessionState, room: int, sinks: int) -> int:
    """Drop the oldest units until the rest fits; prompt, sinks and the newest unit stay."""
    room -= sum(len(piece.tokens) for piece in state.source if piece.unit <= sinks)
    newest = state.units_read - state.dropped_units
    first = newest + 1
    for piece in reversed(state.source):
        room -= len(piece.tokens)
        # The newest unit stays, however long it is: something has to be seen.
        if piece.unit <= sinks or (room < 0 and piece.unit < first <= newest):
            break
        first = piece.unit
    dropped = max(0, first - sinks - 1)
    state.source = [
        piece if piece.unit <= sinks else piece._replace(unit=piece.unit - dropped)
        for piece in state.source
        if piece.unit <= sinks or piece.unit >= first
    ]
    state.dropped_units += dropped
    state.past = {
        key: torch.cat([values[..., :sinks], values[..., sinks + dropped :]], -1)
        for key, values in state.past.items()
    }
    return dropped


def _drop_tokens(state: SessionState, count: int, sinks: int, starts: Sequence[bool]) -> int:
    """Drop target tokens after head and sinks, up to `count` from the start and to a whole word."""
    first = state.num_head + sinks
    stop = state.num_head + count
    last = len(state.target)
    while first < stop < last and not starts[state.target[stop]]:
        stop += 1
    if stop <= first:
        return 0
    dropped = min(stop, last) - first
    del state.target[first : first + dropped]
    del state.delays[sinks : sinks + dropped]
    state.dropped_tokens += dropped
    return dropped
