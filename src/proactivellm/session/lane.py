"""What one lane does next, and what a step's outcome changes: functions of its state alone.

A lane READs unprobed up to what its policy requires, then probes; a probe ends in a WRITE or in a
wish to READ, whose open entries the next step feeds again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from proactivellm.model.lanes import LaneInput, Piece
from proactivellm.model.layout import SOURCE, TARGET
from proactivellm.model.prompt import PromptIds
from proactivellm.policy.base import Policy
from proactivellm.session.state import SessionState, Write
from proactivellm.units.unit import Unit


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step of one lane that has not begun.

    Attributes:
        state: of the lane.
        input: what the lane feeds.
        units: pending units that it takes.
        pieces: the source pieces they make.
        num_read: tokens of these.
    """

    state: SessionState
    input: LaneInput
    units: Sequence[Unit]
    pieces: Sequence[Piece]
    num_read: int


def plan_step(
    state: SessionState, lane: int, policy: Policy, prompt: PromptIds, chunk: int
) -> Planned | None:
    """Say what the lane needs from its pending units and what it feeds; changes nothing.

    Args:
        state: of the lane.
        lane: index of the lane.
        policy: says how much must be read before the next word.
        prompt: fixed ids around source and target.
        chunk: source tokens taken at most, except that one unit always may.

    Returns:
        The lane's next step, or None if it waits for input or is finished.
    """
    if state.finished:
        return None
    needed = _needed_units(state, policy)
    units = _units_to_take(state, needed, chunk)
    units_read = state.units_read + sum(not unit.is_end for unit in units)
    source_finished = state.source_finished or any(unit.final for unit in units)
    ready = source_finished or (needed is not None and units_read >= needed)
    if not units and not ready:
        return None
    pieces = _pieces(state, units, prompt)
    fed = [*state.unfed, *pieces]
    if ready:
        held = state.counts[TARGET]
        drafted = state.draft[max(0, held - len(state.target)) :]
        fed.append(Piece(TARGET, 0, state.target[held:] + drafted))
    step = LaneInput(lane=lane, pieces=fed, counts={**state.counts}, probe=-1 if ready else None)
    num_read = sum(len(piece.tokens) for piece in pieces)
    return Planned(state=state, input=step, units=units, pieces=pieces, num_read=num_read)


def begin_step(planned: Planned, keep_features: bool) -> None:
    """Count what a step takes and feeds as read and fed: its forward has succeeded.

    Args:
        planned: from `plan_step`; its state is changed.
        keep_features: whether pieces that are no ids may be wanted again.
    """
    state, step = planned.state, planned.input
    for unit in planned.units:
        state.pending.popleft()
        state.units_read += not unit.is_end
        state.source_finished = unit.final
    if planned.units:
        state.wants_read = False
    state.source_tokens += planned.num_read
    state.source += [
        piece for piece in planned.pieces if keep_features or not hasattr(piece.tokens, "dim")
    ]
    state.counts[SOURCE] += step.added.get(SOURCE, 0)
    if step.size:  # not so: a bare end marker without closing text, before anything was probed
        state.forwards += 1
        state.tokens += step.size


def is_empty(state: SessionState) -> bool:
    """Whether a source is complete without having held anything.

    Args:
        state: of the lane.
    """
    waits = not state.finished and not state.units_read and not state.source_finished
    return waits and bool(state.pending) and state.pending[0].is_end


def end_empty(state: SessionState, lane: int) -> Write:
    """End a stream whose source is empty: so is its target.

    Args:
        state: of the lane.
        lane: index of the lane.

    Returns:
        The event.
    """
    state.pending.clear()
    state.finished = state.source_finished = True
    return _last_write(state, lane, state.detokenizer.finish())


def cut(state: SessionState, lane: int) -> Write:
    """End a stream that has written all it may.

    Args:
        state: of the lane.
        lane: index of the lane.

    Returns:
        The event.
    """
    state.truncated = state.finished = True
    return _last_write(state, lane, state.detokenizer.finish())


def cancel(state: SessionState, lane: int) -> Write:
    """End a stream after its last written token.

    Args:
        state: of the lane.
        lane: index of the lane.

    Returns:
        The event.
    """
    state.finished = state.cancelled = state.closed = True
    return _last_write(state, lane, state.detokenizer.finish())


def _last_write(state: SessionState, lane: int, text: str) -> Write:
    """The end of a target that no token closes."""
    return Write(
        lane=lane,
        token_id=None,
        text=text,
        units_read=state.units_read,
        final=True,
        source_finished=state.source_finished,
    )


def _needed_units(state: SessionState, policy: Policy) -> int | None:
    """Units that must be read before the next probe; None = the whole source."""
    if state.draft or not state.at_boundary:
        return state.units_read + state.wants_read
    required = policy.required_units(state.words)
    if required is None:
        return None
    needed = max(required, state.units_read + state.wants_read)
    return needed + -needed % policy.every


def _units_to_take(state: SessionState, needed: int | None, chunk: int) -> list[Unit]:
    units: list[Unit] = []
    if state.source_finished:
        return units
    units_read, num_tokens = state.units_read, 0
    for unit in islice(state.pending, len(state.pending)):
        if needed is not None and units_read >= needed:
            break  # a pending end marker too is unread source: decisions may not depend on it
        num_tokens += len(unit.tokens)
        if units and num_tokens > chunk:
            break
        units.append(unit)
        units_read += not unit.is_end
        if unit.final:
            break
    return units


def _pieces(state: SessionState, units: Sequence[Unit], prompt: PromptIds) -> list[Piece]:
    """Source pieces of new units: prompt first, the closing text with the final unit."""
    if not units:
        return []
    pieces = [] if state.source_tokens else [Piece(SOURCE, 0, prompt.source_head)]
    index = state.units_read - state.dropped_units
    for unit in units:
        index += not unit.is_end
        pieces.append(Piece(SOURCE, index, unit.tokens))
        if unit.final:
            pieces.append(Piece(SOURCE, index, prompt.source_tail))
    return [piece for piece in pieces if len(piece.tokens)]


def wish_read(state: SessionState, at_boundary: bool) -> None:
    """A probe ended in READ: its open entries will be fed again after the next unit.

    Args:
        state: of the lane.
        at_boundary: whether the token not written would have begun a word.
    """
    state.wants_read = True
    state.at_boundary = at_boundary


def write_token(state: SessionState, lane: int, token: int, starts_word: bool, ends: bool) -> Write:
    """Append a token to the target.

    Args:
        state: of the lane.
        lane: index of the lane.
        token: the token.
        starts_word: whether it begins a word.
        ends: whether it closes the target.

    Returns:
        The event.
    """
    # The detokenizer first: if it fails, nothing was written.
    text = state.detokenizer.finish() if ends else state.detokenizer.push(token)
    state.counts[TARGET] = len(state.target)
    state.target.append(token)
    state.delays.append(state.units_read)
    state.at_boundary = False
    if ends:
        state.finished = True
        state.pending.clear()  # where the target may end first, the rest of its source is not read
    else:
        state.words += starts_word
    return Write(
        lane=lane,
        token_id=token,
        text=text,
        units_read=state.units_read,
        final=state.finished,
        source_finished=state.source_finished,
    )


def fail(state: SessionState, lane: int, reason: str) -> Write:
    """End a stream that cannot go on.

    Args:
        state: of the lane.
        lane: index of the lane.
        reason: for the user.

    Returns:
        The event.
    """
    state.error, state.finished = reason, True
    try:
        return _last_write(state, lane, state.detokenizer.finish())
    except Exception:  # the detokenizer may be what failed
        return _last_write(state, lane, "")
