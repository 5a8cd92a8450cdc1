"""Plans what one lane feeds next, and counts what it has read once the step succeeded.

A lane READs unprobed up to what its policy requires, then probes; a probe ends in a WRITE or in a
wish to READ, whose open entries the next step feeds again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from proactivellm.backbone.prompt import PromptIds
from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.core.unit import Unit
from proactivellm.forward.lanes import LaneInput, Piece
from proactivellm.output.sentences import ends_sentence
from proactivellm.policy.base import Policy
from proactivellm.policy.reason import Reason
from proactivellm.session.events import Read
from proactivellm.session.sentences import Sentences
from proactivellm.session.state import SessionState


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step of one lane that has not begun."""

    state: SessionState
    input: LaneInput
    units: Sequence[Unit]  # pending units that it takes
    ahead: Sequence[Unit] = ()  # further ones, which what it writes may not see yet
    num_shown: int = 0  # units read ahead before, which it may see now
    pieces: Sequence[Piece]  # the source pieces they make
    num_read: int  # tokens of these
    units_read: int  # units read after the step
    source_finished: bool  # whether the whole source is read then
    silent: bool  # whether nobody speaks in the last of these
    sentences: Sentences  # after its units are read
    proposed: Sequence[int] = ()  # the last tokens that it feeds, which nobody has written yet


def plan_step(
    state: SessionState, lane: int, policy: Policy, prompt: PromptIds, chunk: int
) -> Planned | None:
    """What a lane takes of its pending units and what it feeds; changes nothing.

    It takes at most `chunk` source tokens, except that one unit always may. None if the lane waits
    for input or is finished.
    """
    if state.finished:
        return None
    needed = _needed_units(state, policy)
    num_shown = _num_shown(state, needed)
    units = _units_to_take(state, needed, chunk, policy.restarts)
    units_read, source_finished = state.units_read + num_shown, state.source_finished
    for unit in units:
        units_read += not unit.is_end
        source_finished |= unit.final
    holds = units[-1].holds if units else state.holds
    ready = source_finished or (needed is not None and units_read >= needed and not holds)
    if not units and not ready:
        return None
    ahead = _units_ahead(state, units, chunk) if ready else []
    pieces = source_pieces(state, [*units, *ahead], prompt)
    newest = units_read - state.dropped_units
    fed = [*state.unfed, *(piece for piece in pieces if piece.unit <= newest)]
    behind, probe = [piece for piece in pieces if piece.unit > newest], None
    if ready:
        held = state.counts[state.group]
        drafted = state.draft[max(0, held - len(state.target)) :]
        fed.append(Piece(state.group, 0, state.written[held:] + drafted))
        probe = -1 - sum(len(piece.tokens) for piece in behind)
    horizon = units_read if state.ahead > num_shown else None
    step = LaneInput(
        lane=lane, pieces=[*fed, *behind], counts={**state.counts}, probe=probe, horizon=horizon
    )
    return Planned(
        state=state,
        input=step,
        units=units,
        ahead=ahead,
        num_shown=num_shown,
        pieces=pieces,
        num_read=sum(len(piece.tokens) for piece in pieces),
        units_read=units_read,
        source_finished=source_finished,
        silent=units[-1].silent if units else state.silent,
        sentences=_hear(state, units),
    )


def begin_step(planned: Planned, early: Reason, keep_features: bool) -> list[Read]:
    """Count what a step takes and feeds as read and fed: its forward has succeeded.

    Args:
        early: why units are read that no probe has asked for.
        keep_features: whether pieces that are no ids may be wanted again.
    """
    state, step = planned.state, planned.input
    reads: list[Read] = []
    reason = Reason(state.read_reason) if state.wants_read else early
    state.units_read += planned.num_shown
    state.ahead -= planned.num_shown
    for unit in planned.units:
        state.pending.popleft()
        state.source_finished, state.silent = unit.final, unit.silent
        state.spoken = state.spoken if unit.spoken is None else unit.spoken
        state.holds = unit.holds and not unit.final
        if not unit.is_end:
            state.units_read += 1
            lane, number = step.lane, state.units_read
            reads.append(Read(lane=lane, unit=unit, units_read=number, reason=reason))
            reason = early
    for unit in planned.ahead:
        state.pending.popleft()
        state.ahead += 1
        number = state.units_read + state.ahead
        reads.append(Read(lane=step.lane, unit=unit, units_read=number, reason=early))
    if planned.units:
        state.wants_read = False
        state.sentences = planned.sentences
    state.source_tokens += planned.num_read
    state.source += [
        piece for piece in planned.pieces if keep_features or not hasattr(piece.tokens, "dim")
    ]
    state.counts[SOURCE] += step.added.get(SOURCE, 0)
    if step.size:  # not so: a bare end marker without closing text, before anything was probed
        state.forwards += 1
        state.tokens += step.size
    return reads


def starves(state: SessionState, policy: Policy) -> bool:
    """Whether a stream can only go on with a further unit, or the end of its source."""
    if state.finished or state.source_finished or state.pending:
        return False
    needed = _needed_units(state, policy)
    return needed is None or state.holds or needed > state.units_read + state.ahead


def _needed_units(state: SessionState, policy: Policy) -> int | None:
    """Units that must be read before the next probe; None = the whole source."""
    if state.draft or not state.at_boundary:
        return state.units_read + state.wants_read
    if policy.restarts:
        required = state.sentences.required_units(policy, state.words)
    else:
        required = policy.required_units(state.words)
    if required is None:
        return None
    if state.group != TARGET:
        required = max(required, state.words + 1)  # a thought is about a unit of its own
    needed = max(required, state.units_read + state.wants_read)
    return needed + -needed % policy.every  # up to a multiple: decisions fall only there


def _units_to_take(
    state: SessionState, needed: int | None, chunk: int, restarts: bool
) -> list[Unit]:
    units: list[Unit] = []
    if state.source_finished:
        return units
    units_read, num_tokens = state.units_read + state.ahead, 0
    holds = state.holds
    for unit in islice(state.pending, len(state.pending)):
        if needed is not None and units_read >= needed and not holds:
            break  # a pending end marker too is unread source: decisions may not depend on it
        num_tokens += len(unit.tokens)
        if units and num_tokens > chunk:
            break
        units.append(unit)
        units_read, holds = units_read + (not unit.is_end), unit.holds
        # A policy that restarts requires something else from a sentence end on.
        if unit.final or (restarts and ends_sentence(unit.text)):
            break
    return units


def _num_shown(state: SessionState, needed: int | None) -> int:
    """Units read ahead that come into view: those needed."""
    if needed is None:
        return state.ahead
    return min(state.ahead, max(0, needed - state.units_read))


def _units_ahead(state: SessionState, units: Sequence[Unit], chunk: int) -> list[Unit]:
    """Units to read in the forward that thinks about earlier ones; the end of the source is none.

    What closes the source comes into view with it, at the end of a thought.
    """
    ahead: list[Unit] = []
    if not state.reads_ahead or state.source_finished:
        return ahead
    room = chunk - sum(len(unit.tokens) for unit in units)
    for unit in islice(state.pending, len(units), len(state.pending)):
        room -= len(unit.tokens)
        if unit.final or room < 0:
            break
        ahead.append(unit)
    return ahead


def _hear(state: SessionState, units: Sequence[Unit]) -> Sentences:
    sentences, units_read = state.sentences, state.units_read
    for unit in units:
        units_read += not unit.is_end
        if ends_sentence(unit.text):
            sentences = sentences.hear(units_read)
    return sentences


def source_pieces(state: SessionState, units: Sequence[Unit], prompt: PromptIds) -> list[Piece]:
    """Source pieces of new units: prompt first, the closing text with the final unit."""
    if not units:
        return []
    opening = prompt.source_head if state.opening is None else state.opening
    index = state.units_read + state.ahead - state.dropped_units
    pieces = [] if state.units_read + state.ahead else [Piece(SOURCE, 0, opening)]
    for unit in units:
        index += not unit.is_end
        pieces.append(Piece(SOURCE, index, unit.tokens, unit.grid))
        if unit.final:
            pieces.append(Piece(SOURCE, index, prompt.source_tail))
    # Of a moment that kept none of its tokens, positions are to be counted.
    return [piece for piece in pieces if len(piece.tokens) or piece.grid is not None]
