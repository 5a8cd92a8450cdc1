"""What the model would say if it had read the whole source: for oracles, where all of it is given.

A second cache holds the whole source of each lane and what was written of its target.
Legend: P = lanes that probe, V = vocabulary.
"""

from collections.abc import Sequence

from torch import Tensor

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import LaneInput, Piece
from proactivellm.session.lane import source_pieces
from proactivellm.session.state import SessionState


class WholeView:
    """Next-token logits of lanes as if their whole source had been read.

    Args:
        num_lanes: of the engine; nothing is allocated before the first call.
    """

    def __init__(self, model: StreamingCausalLM, num_lanes: int) -> None:
        self.model = model
        self._num_lanes = num_lanes
        self._cache: ArrivalCache | None = None
        self._held: dict[int, tuple[SessionState, dict[str, int]]] = {}

    def logits(self, lanes: Sequence[tuple[int, SessionState]]) -> Tensor:
        """Logits of the token after what each lane has written, [P, V].

        Raises:
            ValueError: the source of a lane is not all there.
        """
        if self._cache is None:
            self._cache = self.model.new_cache(self._num_lanes)
        inputs = [self._input(lane, state) for lane, state in lanes]
        for given in inputs:
            self.model.check_position(given)
            self._cache.lengths[given.lane] = sum(given.counts.values())
            self._held.pop(given.lane, None)  # until the forward has succeeded
        output = self.model.step(self._cache, inputs)
        assert output is not None
        for given, (lane, state) in zip(inputs, lanes, strict=True):
            counts = {group: n + given.added.get(group, 0) for group, n in given.counts.items()}
            self._held[lane] = state, counts
        return output.logits_PV

    def _input(self, lane: int, state: SessionState) -> LaneInput:
        if state.dropped_units or state.dropped_tokens:
            raise ValueError(
                "it looks at the whole source, of which a part has left the window: an oracle "
                "needs a larger one, or none"
            )
        owner, counts = self._held.get(lane, (None, {}))
        if owner is not state:
            counts = {SOURCE: 0, TARGET: 0}
        pieces = [] if counts[SOURCE] else self._source(state)
        # At least the last token is fed, even if nothing was written since: it is what probes.
        counts = {**counts, TARGET: min(counts[TARGET], len(state.target) - 1)}
        pieces = [*pieces, Piece(TARGET, 0, state.target[counts[TARGET] :])]
        return LaneInput(lane=lane, pieces=pieces, counts=counts, probe=-1)

    def _source(self, state: SessionState) -> list[Piece]:
        """All of a source, read or not, with the prompt."""
        if not state.closed:
            raise ValueError(
                "it looks at the whole source, and more of this one may come: an oracle is for the "
                "evaluation of sources that are complete"
            )
        if sum(len(piece.tokens) for piece in state.source) != state.num_in_view:
            raise ValueError(
                "it looks at the whole source, of which features were not kept: an oracle reads "
                "text alone"
            )
        return [*state.source, *source_pieces(state, list(state.pending), self.model.prompt)]
