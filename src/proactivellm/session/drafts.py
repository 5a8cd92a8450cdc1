"""Drafts: tokens hypothesised after the target, of which a policy commits what it trusts."""

from collections.abc import Sequence

from proactivellm.core.layout import TARGET
from proactivellm.policy.base import DraftPolicy
from proactivellm.policy.reason import Reason
from proactivellm.session.state import SessionState
from proactivellm.session.writing import wish_read


def draft_suffices(
    state: SessionState, policy: DraftPolicy, starts: Sequence[bool], whole: bool
) -> bool:
    """Whether a draft is long enough: to the policy's lookahead, and to a word that is forced.

    Args:
        starts: for each token of the draft, whether it begins a word.
        whole: whether the last word is known to be whole.
    """
    seen_whole = whole or any(starts[1:])
    overdue = policy.overdue(state.units_read, state.words)
    return len(state.draft) >= policy.lookahead and (seen_whole or not overdue)


def fills(state: SessionState, policy: DraftPolicy, size: int) -> bool:
    """Whether a draft takes all the room after the target, in a window of `size` target tokens.

    It may outgrow the window by as much as its policy looks ahead.
    """
    return len(state.target) + len(state.draft) >= size + policy.lookahead


def reasons_to_commit(
    state: SessionState, policy: DraftPolicy, starts: Sequence[bool], whole: bool
) -> list[Reason]:
    """What of a finished draft is written, and why: whole words, within the bounds.

    `starts` and `whole` as for `draft_suffices`; a reason for each leading token to commit.
    """
    draft = state.draft
    edges = [i for i in range(len(draft)) if starts[i] or i == 0] + [len(draft)] * whole
    hypotheses = [*state.hypotheses, draft][-policy.history :]
    trusted = policy.commit(hypotheses)
    committed: list[Reason] = []
    for word, edge in enumerate(edges[1:]):  # ends of the words known to be whole
        required = policy.required_units(state.words + word)
        due = edge <= trusted or policy.overdue(state.units_read, state.words + word)
        if not due or required is None or required > state.units_read:
            break
        reason = Reason.WRITE_RULE if edge <= trusted else Reason.WRITE_MAX_LAG
        committed += [reason] * (edge - len(committed))
    return committed


def end_draft(state: SessionState, policy: DraftPolicy, committed: int) -> None:
    """Forget a draft whose first `committed` tokens were written, keep the rest to agree with."""
    written = state.draft[:committed]
    known = [h[committed:] for h in state.hypotheses if h[:committed] == written]
    known.append(state.draft[committed:])
    state.hypotheses = known[-policy.history :]
    drop_draft(state)
    wish_read(state, at_boundary=True, reason=Reason.READ_RULE)


def drop_draft(state: SessionState) -> None:
    """Take a draft back: the last token of the target is fed again."""
    state.draft = []
    # The head sees what the first target token sees: without one in view, all of it is fed again.
    state.counts[TARGET] = len(state.target) - 1 if len(state.target) > state.num_head else 0
