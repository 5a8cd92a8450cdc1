"""Drives a stream whose reads and writes are given, to look into a model."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.forward.lanes import LaneInput, Piece, StepOutput

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


def forced_probes(
    streaming: "StreamingCausalLM",
    source: Sequence[Sequence[int] | Tensor],
    target: Sequence[int],
    probes: Iterable[tuple[int, int]],
    attention: bool = False,
) -> Iterator[StepOutput]:
    """Read and write what is given, and probe along the way.

    Args:
        source: tokens of what stands before the source, then those of each unit.
        target: ids, without the head, which the prompt of the model gives.
        probes: for each of them, units read and ids written before it; neither ever decreases. One
            that is followed by a READ is taken back.
        attention: capture the attention of the probing tokens.
    """
    head = streaming.prompt.target_head
    sequence = [*head, *target]
    cache, counts, num_fed = streaming.new_cache(), {SOURCE: 0, TARGET: 0}, 0
    for units_read, written in probes:
        counts[TARGET] = len(head) + written - 1 if written else 0
        if streaming.layout.reencoded and units_read >= num_fed:
            counts[TARGET] = 0
        fed = range(num_fed, units_read + 1)
        pieces = [Piece(SOURCE, unit, source[unit]) for unit in fed]
        pieces.append(Piece(TARGET, 0, sequence[counts[TARGET] : len(head) + written]))
        pieces = [piece for piece in pieces if len(piece.tokens)]
        step = LaneInput(lane=0, pieces=pieces, counts=counts, probe=-1)
        cache.lengths[0] = sum(counts.values())
        output = streaming.step(cache, [step], attention=attention)
        assert output is not None
        yield output
        counts = {**counts, SOURCE: counts[SOURCE] + step.added.get(SOURCE, 0)}
        num_fed = units_read + 1
