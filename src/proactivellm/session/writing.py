"""What the outcome of a probe changes in a stream: a wish to READ, a token written, an end."""

from proactivellm.core.layout import TARGET
from proactivellm.output.sentences import ends_sentence
from proactivellm.policy.reason import Reason
from proactivellm.session.events import End, Ending, Event, Write
from proactivellm.session.state import SessionState


def wish_read(state: SessionState, at_boundary: bool, reason: Reason) -> None:
    """A probe ended in READ: its open entries will be fed again after the next unit.

    `at_boundary`: the token that was not written would have begun a word.
    """
    state.wants_read = True
    state.read_reason = int(reason)
    state.at_boundary = at_boundary
    if reason == Reason.READ_END_HELD and state.sentences.heard > state.sentences.units:
        state.sentences = state.sentences.write(ended=True)  # not all of them end in a mark


def write_token(
    state: SessionState, lane: int, token: int, starts_word: bool, reason: Reason
) -> Write:
    """Append a token that does not end the target."""
    text = state.detokenizer.push(token)  # first: if it fails, nothing was written
    write = _append(state, lane, token, text, reason)
    if starts_word:
        state.sentences = state.sentences.begin_word(state.words)
    state.sentences = state.sentences.write(ends_sentence(text, before=state.sentences.ended))
    state.words += starts_word
    return write


def write_end(state: SessionState, lane: int, token: int, reason: Reason) -> list[Event]:
    """Append the token that ends the target."""
    write = _append(state, lane, token, state.detokenizer.finish(), reason)
    state.finished = True
    state.pending.clear()  # where the target may end first, the rest of its source is not read
    return [write, End(lane=lane, how=Ending.END_TOKEN)]


def _append(state: SessionState, lane: int, token: int, text: str, reason: Reason) -> Write:
    state.counts[TARGET] = len(state.target)
    state.target.append(token)
    state.delays.append(state.units_read)
    state.at_boundary = False
    return Write(
        lane=lane,
        token_id=token,
        text=text,
        units_read=state.units_read,
        source_finished=state.source_finished,
        reason=reason,
    )


def is_empty(state: SessionState) -> bool:
    """Whether a source is complete without having held anything."""
    waits = not state.finished and not state.units_read and not state.source_finished
    return waits and bool(state.pending) and state.pending[0].is_end


def end_empty(state: SessionState, lane: int) -> list[Event]:
    """End a stream whose source is empty: so is its target."""
    state.pending.clear()
    state.finished = state.source_finished = True
    return _end(state, lane, Ending.EMPTY_SOURCE)


def cut(state: SessionState, lane: int) -> list[Event]:
    """End a stream that has written all it may."""
    state.truncated = state.finished = True
    return _end(state, lane, Ending.LENGTH_LIMIT)


def cancel(state: SessionState, lane: int) -> list[Event]:
    """End a stream after its last written token."""
    state.finished = state.cancelled = state.closed = True
    return _end(state, lane, Ending.CANCELLED)


def fail(state: SessionState, lane: int, error: str) -> list[Event]:
    """End a stream that cannot go on, with an error for the user."""
    state.error, state.finished = error, True
    try:
        return _end(state, lane, Ending.ERROR)
    except Exception:  # the detokenizer may be what failed
        return [End(lane=lane, how=Ending.ERROR, error=error)]


def _end(state: SessionState, lane: int, how: Ending) -> list[Event]:
    """An end without a token: text that was held back comes out with it."""
    end = End(lane=lane, how=how, error=state.error)
    text = state.detokenizer.finish()
    if not text:
        return [end]
    write = Write(
        lane=lane,
        token_id=None,
        text=text,
        units_read=state.units_read,
        source_finished=state.source_finished,
    )
    return [write, end]
