"""Speculation in an engine: proposed tokens are fed with a step, and decided on one by one.

A policy is asked about each of them as it would be if the next step had fed it, from its own row of
the forward. What is decided therefore is what would have been decided without proposals.
"""

from collections.abc import Sequence
from dataclasses import replace

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import place
from proactivellm.forward.speculation import Context
from proactivellm.policy.base import DraftPolicy, Policy
from proactivellm.policy.evidence import Evidence
from proactivellm.session.lane import Planned, plan_step
from proactivellm.session.limits import Limits
from proactivellm.session.residence import Residence
from proactivellm.session.window import Window, outgrown


class Speculator:
    """Lengthens the steps of lanes that probe by proposed tokens; counts those proposed and kept.

    A lane that is watched is left as it is: who watches is told of one probe at a time. Proposals
    take only what is free: tokens of a step, pages of the cache, positions of the model.

    Args:
        starts: by token id, whether it begins a word.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        limits: Limits,
        window: Window | None,
        residence: Residence,
        starts: Sequence[bool],
    ) -> None:
        self.model = model
        self.limits = limits
        self.window = window
        self.residence = residence
        self.starts = starts
        speculation = model.speculation
        self.most = 0 if speculation is None else speculation.tokens
        self.proposer = None if speculation is None else speculation.proposer(limits.streams)
        self.proposed = self.kept = 0

    def extend(
        self,
        plans: Sequence[Planned],
        policies: Sequence[Policy],
        watches: Sequence[tuple[Evidence, ...]],
    ) -> Sequence[Planned]:
        """Return the plans of a step, with proposed tokens where they may save a forward.

        Raises:
            Exception: what a draft model raised; no lane has begun.
        """
        if self.proposer is None:
            return plans
        room = self.limits.step_tokens - sum(planned.input.size for planned in plans)
        contexts: dict[int, Context] = {}
        for index, planned in enumerate(plans):
            lane = planned.input.lane
            if planned.input.probe is not None and not watches[lane]:
                most = min(room, self._most(planned, policies[lane]))
                if most > 0:
                    contexts[index] = _context(planned, most)
                    room -= most
        if not contexts:
            return plans
        extended = list(plans)
        found = self.proposer.propose([*contexts.values()])
        for index, tokens in zip(contexts, found, strict=True):
            extended[index] = self._lengthened(plans[index], policies, tokens)
        return extended

    def onward(self, planned: Planned, policy: Policy, num_kept: int) -> Planned | None:
        """The plan of a lane's next step, if that is to feed the next proposed token and no more.

        None: the step says something else, or there is no such token.

        Args:
            num_kept: proposed tokens of the lane that were written before.
        """
        if num_kept == len(planned.proposed):
            return None
        state, token = planned.state, planned.proposed[num_kept]
        if self.window is not None and outgrown(state, self.window):
            return None
        try:
            step = plan_step(state, planned.input.lane, policy, self.model.prompt, chunk=1)
        except Exception:  # the policy's: the step that asks it again ends the lane
            return None
        if step is None or step.units or step.input.size != 1:
            return None
        (piece,) = step.input.pieces
        if step.input.probe is None or list(piece.tokens) != [token]:
            return None
        self.kept += 1
        return step

    def _most(self, planned: Planned, policy: Policy) -> int:
        """Tokens that may be proposed to a lane: it is to write, and there is a place for them."""
        if _may_read_again(planned, policy):
            return 0
        most = self.most
        if self.window is not None:
            most = min(most, self.window.target - len(planned.state.target))
        if self.model.limit is not None:
            last = int(place(planned.input, self.model.layout)[0].max())
            most = min(most, self.model.limit - 1 - last)
        return most

    def _lengthened(
        self, planned: Planned, policies: Sequence[Policy], tokens: Sequence[int]
    ) -> Planned:
        """A plan with the proposed tokens that its lane might write, as far as there are pages."""
        given, state = planned.input, planned.state
        proposed = tokens[: self._writable(planned, policies[given.lane], tokens)]
        length = state.num_entries + given.size + len(proposed)
        if not proposed or not self.residence.fits(given.lane, length):
            return planned
        self.proposed += len(proposed)
        *before, last = given.pieces
        pieces = [*before, last._replace(tokens=[*last.tokens, *proposed])]
        rows = 1 + len(proposed)
        return replace(
            planned, input=replace(given, pieces=pieces, probe=-rows, rows=rows), proposed=proposed
        )

    def _writable(self, planned: Planned, policy: Policy, tokens: Sequence[int]) -> int:
        """How many of the tokens could be written, and followed by another, without a READ."""
        words, ends = planned.state.words, self.model.end_token_ids
        num_writable = 0
        for token in tokens:
            if not 0 <= token < len(self.starts) or token in ends:
                break
            if self.starts[token] or not words:
                if not _may_begin(planned, policy, words):
                    break
                words += 1
            num_writable += 1
        # At word boundaries what follows may go on with the word, and is probed in any case.
        goes_on = self.model.settings.boundary == "word" or _may_begin(planned, policy, words)
        return num_writable if goes_on else max(0, num_writable - 1)


def _may_begin(planned: Planned, policy: Policy, words: int) -> bool:
    """Whether the bounds let a lane begin a word after so many, without a further unit."""
    if planned.source_finished or isinstance(policy, DraftPolicy):
        return True
    try:
        if policy.restarts:
            required = planned.sentences.required_units(policy, words)
        else:
            required = policy.required_units(words)
    except Exception:  # the step that asks it in turn tells
        return False
    return required is not None and required <= planned.units_read


def _may_read_again(planned: Planned, policy: Policy) -> bool:
    """Whether the rule said READ and is to be asked again: it mostly says the same."""
    state = planned.state
    if not state.wants_read or planned.source_finished or isinstance(policy, DraftPolicy):
        return False
    if policy.restarts:  # its bounds are all of its rule
        return False
    try:
        return policy.settle(planned.units_read, state.words) is None
    except Exception:  # the step that asks it in turn tells
        return True


def _context(planned: Planned, most: int) -> Context:
    state = planned.state
    earlier = [*state.target, *state.hypotheses[-1]] if state.hypotheses else []
    return Context(
        lane=planned.input.lane,
        stream=state,
        source=[*state.source, *planned.pieces],
        num_source=state.num_in_view + planned.num_read,
        target=[*state.target, *state.draft],
        earlier=earlier,
        held=planned.input.counts,
        most=most,
    )
