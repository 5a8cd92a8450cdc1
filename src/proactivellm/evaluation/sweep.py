"""Many policies over the same sources in one engine; what they do alike is done once.

Policies that differ in threshold and bounds share a lane until they decide differently. Then it
forks: those that READ go on, and those that WRITE in another one, which begins with all that it
holds.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from proactivellm.evaluation.crowd import Crowd
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.reason import Reason
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job
from proactivellm.stream.recorded import DEFAULT_RATE_WPM, Recorded
from proactivellm.stream.streams import Streams

Members = Mapping[int, ThresholdPolicy]


def sweep(
    model: StreamingCausalLM,
    policies: Sequence[ThresholdPolicy],
    jobs: Sequence[Job],
    num_lanes: int,
) -> Iterator[tuple[int, list[Instance]]]:
    """Runs every job under every policy; gives the place of each job, with its instances.

    These are in the order of the policies, and the same for all that never decided differently:
    each has the name of the first one, and the forwards and tokens of the lanes it came through.

    Args:
        num_lanes: streams advanced by one forward.

    Raises:
        ValueError: a source could not be streamed.
    """
    if not policies:
        return
    streams = Streams(model, policies[0], Limits(streams=num_lanes), Sampling())
    crowds = _crowds([policy.bound_to(model) for policy in policies])
    waiting = (
        _Source.begin(streams, p, jobs[p], crowd) for p in range(len(jobs)) for crowd in crowds
    )
    results: list[dict[int, Instance]] = [{} for _ in jobs]
    forks: list[_Begin] = []  # they go first: they hold memory
    running: list[_Source] = []
    while True:
        while len(running) < num_lanes and (begin := forks.pop() if forks else next(waiting, None)):
            running.append(begin())
        if not running:
            return
        for source in running:
            source.prepare()
        streams.step()
        for source in running:
            if not source.ended:
                forks += source.forks()
                continue
            found = results[source.place]
            found |= source.instances()
            if len(found) == len(policies):
                yield source.place, [found.pop(number) for number in range(len(policies))]
        running = [source for source in running if not source.ended]


def _crowds(policies: Sequence[ThresholdPolicy]) -> list[Members]:
    """Policies by number, those that may share a lane together."""
    crowds: dict[Hashable, dict[int, ThresholdPolicy]] = {}
    for number, policy in enumerate(policies):
        alike = {**policy.options, "threshold": None, "min_lag": None, "max_lag": None}
        crowds.setdefault((policy.name, *alike.items()), {})[number] = policy
    return list(crowds.values())


class _Source:
    """A job in a lane, and the policies that share it."""

    def __init__(
        self, place: int, recorded: Recorded, crowd: Crowd, anew: "Callable[[Members], _Begin]"
    ) -> None:
        self.place, self._recorded, self._crowd, self._anew = place, recorded, crowd, anew
        self._words: int | None = None  # written, where the next token is known to begin another

    @classmethod
    def begin(cls, streams: Streams, place: int, job: Job, members: Members) -> "_Begin":
        """What begins a source: when there is a lane."""

        def begin() -> _Source:
            crowd = Crowd(members)
            recorded = Recorded(streams, replace(job, policy=crowd), DEFAULT_RATE_WPM)
            return cls(place, recorded, crowd, partial(cls.begin, streams, place, job))

        return begin

    @property
    def ended(self) -> bool:
        """Whether all is written, or it could not go on."""
        return self._recorded.stream.ended

    def prepare(self) -> None:
        """Before a step: hears what comes next, and notes where it is."""
        self._recorded.feed()
        state = self._recorded.stream.state
        self._words = state.words if state.at_boundary else None

    def forks(self) -> Iterator["_Begin"]:
        """After a step: what begins the sources of the policies that cannot stay."""
        state, crowd = self._recorded.stream.state, self._crowd
        probed_early = self._words == state.words and not state.at_boundary
        if probed_early and not state.source_finished:
            # The next token, with more source, would not begin a word after all. Who had not
            # probed here would not know; so rare that those begin anew.
            if absent := crowd.absent(state.units_read, state.words):
                crowd.leavers -= absent
                yield self._anew(crowd.part(absent))
        leavers, crowd.leavers = crowd.leavers, set()
        # Else what was done was not up to them: a word is written to its end.
        if leavers and state.wants_read and state.read_reason == Reason.READ_RULE:
            go_on, members = self._recorded.fork(), crowd.part(leavers)
            yield partial(self._fork, go_on, Crowd(members))

    def _fork(self, go_on: Callable[[Crowd], Recorded], crowd: Crowd) -> "_Source":
        twin = _Source(self.place, go_on(crowd), crowd, self._anew)
        twin._recorded.stream.state.wants_read = False  # so that it probes there again
        return twin

    def instances(self) -> dict[int, Instance]:
        """The instance of each policy, one for all; ValueError if it could not be streamed."""
        stream, job = self._recorded.stream, self._recorded.job
        if stream.error is not None:
            raise ValueError(f"source {job.index}: {stream.error}")
        return dict.fromkeys(self._crowd.members, stream.instance(job))


_Begin = Callable[[], _Source]
