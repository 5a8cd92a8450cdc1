"""Rollouts: streams on the engine whose policy draws its decisions, kept as trajectories.

Tokens are greedy; the actions are READ and WRITE. Legend: N = open decisions of a stream, F =
inputs of the head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.evidence import Candidate
from proactivellm.policy.head import inputs_of
from proactivellm.policy.reason import Reason
from proactivellm.rl.sampled import SampledLearned, log_prob, write_logit
from proactivellm.rl.written import Rollout, Run, Source, drive
from proactivellm.session.events import Event, Probed
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, source_turns
from proactivellm.stream.clock import ArrivalClock
from proactivellm.stream.streams import Streams

_DRAWN = (Reason.READ_RULE, Reason.WRITE_RULE)


@dataclass(frozen=True, kw_only=True)
class Trajectory(Rollout):
    """A rollout, and the decisions that the policy had a choice in.

    What bounds, the end of the source, the inside of a word or an end that is held settle is no
    decision of the policy, and not among them.
    """

    units_read_N: Tensor  # int64
    tokens_written_N: Tensor  # int64
    words_written_N: Tensor  # before the word of the candidate, int64
    write_N: Tensor  # what was done: bool, True = WRITE
    inputs_NF: Tensor  # of the head, as the engine computed them, float64
    log_prob_N: Tensor  # of what was done, float64


def make_sources(model: StreamingCausalLM, jobs: Sequence[Job]) -> list[Source]:
    """Texts of at least two units: of one unit there is nothing to decide.

    ValueError where a source is a recording, or none is long enough.
    """
    if any(job.media for job in jobs):
        raise ValueError("reinforcement takes texts, and there are recordings among the sources")
    turns = [(job, source_turns(model, job)) for job in jobs]
    sources = [Source(job=job, units=t[0]) for job, t in turns if t and len(t[0]) > 1]
    if not sources:
        raise ValueError("every source is too short: there is nothing to decide")
    return sources


def roll_out(
    model: StreamingCausalLM,
    policy: SampledLearned,
    sources: Sequence[Source],
    *,
    group: int,
    seed: Sequence[int] = (0,),
    num_lanes: int = 64,
) -> list[list[Trajectory]]:
    """`group` trajectories of each source, many at once, each as if it had been alone.

    Draws are a function of `seed`, the index of the job and the number within the group; the
    generator of `policy` is not used.

    Raises:
        ValueError: a source could not be streamed.
    """
    streams = Streams(model, policy, Limits(streams=num_lanes), Sampling())

    def begin(source: Source, number: int) -> Callable[[], _Run]:
        return lambda: _Run(streams, source, policy.seeded([*seed, source.job.index, number]))

    waiting = [begin(source, number) for source in sources for number in range(group)]
    done = [run.trajectory() for run in drive(streams, waiting, num_lanes)]
    return [done[at : at + group] for at in range(0, len(done), group)]


class _Run(Run):
    """A stream on its way, and what it has decided."""

    def __init__(self, streams: Streams, source: Source, policy: SampledLearned) -> None:
        self.policy = policy
        stream = streams.open(clock=ArrivalClock(), policy=policy, watch=[Candidate()])
        super().__init__(stream, source)
        self._places: list[tuple[int, int, int, bool]] = []
        self._heads: list[Tensor] = []
        self._inputs: list[Tensor] = []

    def note(self, event: Event) -> None:
        """Keep a token that was written, or a decision that was drawn."""
        super().note(event)
        if not isinstance(event, Probed) or event.reason not in _DRAWN:
            return
        head, seen = self.policy.head, event.seen
        assert head is not None
        units, words = int(seen.units_read_B), int(seen.words_written_B)
        self._places.append((units, len(self.tokens), words, event.reason.writes))
        self._heads.append(head.logit(seen))
        self._inputs.append(torch.cat(inputs_of(seen, head.scalars, head.layer), dim=-1))

    def trajectory(self) -> Trajectory:
        """What became of it; ValueError if it failed."""
        written = self.rollout()
        units_N, tokens_N, words_N, write_N = torch.tensor(self._places).reshape(-1, 4).long().T
        policy = self.policy
        head_N = torch.cat(self._heads) if self._heads else torch.zeros(0, dtype=torch.float64)
        logit_N = write_logit(policy, policy.temperature, head_N.cpu(), units_N, words_N)
        return Trajectory(
            **vars(written),
            units_read_N=units_N,
            tokens_written_N=tokens_N,
            words_written_N=words_N,
            write_N=write_N.bool(),
            inputs_NF=torch.cat(self._inputs).cpu() if self._inputs else head_N.reshape(0, 0),
            log_prob_N=log_prob(logit_N, write_N.bool()),
        )
