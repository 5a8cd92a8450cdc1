"""A second model that drafts: it reads and writes along with the first and is asked ahead.

Legend: P = lanes that draft.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.lanes import LaneInput, Piece
from proactivellm.forward.speculation import Context, Proposer, Speculation, check_tokens

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


@dataclass(frozen=True, kw_only=True)
class DraftModel(Speculation):
    """Proposes what a smaller model would write next, greedily: a forward of it for each token.

    It is fed what the first model is fed, prompt included, in a layout of its own. Sources of which
    a part is no text are not drafted for.
    """

    model: "StreamingCausalLM" = field(repr=False)
    tokens: int = 4

    def __post_init__(self) -> None:
        check_tokens(self.tokens)

    def proposer(self, num_lanes: int) -> Proposer:
        return _Drafting(self.model, num_lanes)

    def check(self, model: "StreamingCausalLM") -> None:
        if self.model.tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise ValueError(
                f"the draft model {_name(self.model)} has another vocabulary than {_name(model)}: "
                "its tokens mean something else; take one with the same tokenizer"
            )


class _Held(NamedTuple):
    """What the cache of the draft model holds of a lane."""

    stream: object
    num_source: int  # tokens
    target: list[int]


_NOTHING = _Held(None, 0, [])


class _Drafting(Proposer):
    """The draft model's side of the lanes of an engine; allocates nothing before the first call."""

    def __init__(self, model: "StreamingCausalLM", num_lanes: int) -> None:
        self.model, self._num_lanes = model, num_lanes
        self._cache: ArrivalCache | None = None
        self._held: dict[int, _Held] = {}

    def propose(self, contexts: Sequence[Context]) -> list[list[int]]:
        proposed: list[list[int]] = [[] for _ in contexts]
        if self._cache is None:
            self._cache = self.model.new_cache(self._num_lanes)
        steps = {i: self._catch_up(each) for i, each in enumerate(contexts) if _is_text(each)}
        while steps := {i: step for i, step in steps.items() if self._has_place(step)}:
            for step in steps.values():
                self._cache.lengths[step.lane] = sum(step.counts.values())
                self._held.pop(step.lane, None)  # until the forward has succeeded
            output = self.model.step(self._cache, list(steps.values()))
            assert output is not None
            tokens = output.logits_PV.argmax(-1).tolist()
            for (i, step), token in zip([*steps.items()], tokens, strict=True):
                context = contexts[i]
                counts = {g: n + step.added.get(g, 0) for g, n in step.counts.items()}
                fed = [*context.target, *proposed[i]]
                self._held[step.lane] = _Held(context.stream, counts[SOURCE], fed)
                proposed[i].append(token)
                if token in self.model.end_token_ids or len(proposed[i]) >= context.most:
                    del steps[i]
                else:
                    piece = Piece(TARGET, 0, [token])
                    steps[i] = LaneInput(lane=step.lane, pieces=[piece], counts=counts, probe=-1)
        return proposed

    def _catch_up(self, context: Context) -> LaneInput:
        """What was read and written since: at least the last token is fed, as it is what probes."""
        held = self._held.get(context.lane, _NOTHING)
        if held.stream is not context.stream or not context.held[SOURCE]:
            held = _NOTHING
        new, num_source = list[Piece](), 0
        for piece in context.source:
            num_source += len(piece.tokens)
            if num_source > held.num_source:
                new.append(piece)
        # Entries that the lane itself feeds again may have seen less of the source.
        target, num_target = context.target, 0
        most = min(len(held.target), context.held[TARGET], len(target) - 1)
        while num_target < most and held.target[num_target] == target[num_target]:
            num_target += 1
        counts = {SOURCE: held.num_source, TARGET: num_target}
        if self.model.layout.reencoded and new and num_target:
            new, counts = list(context.source), {SOURCE: 0, TARGET: 0}
        pieces = [*new, Piece(TARGET, 0, list(target[counts[TARGET] :]))]
        return LaneInput(lane=context.lane, pieces=pieces, counts=counts, probe=-1)

    def _has_place(self, step: LaneInput) -> bool:
        """Whether the draft model has positions for these tokens; it may have fewer."""
        try:
            self.model.check_position(step)
        except ValueError:
            return False
        return True


def _is_text(context: Context) -> bool:
    is_kept = sum(len(piece.tokens) for piece in context.source) == context.num_source
    return is_kept and not any(isinstance(piece.tokens, Tensor) for piece in context.source)


def _name(model: "StreamingCausalLM") -> str:
    return repr(str(model.folder or model.model.config.name_or_path))
