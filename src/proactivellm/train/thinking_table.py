"""What a recipe says of a model that is to think while it reads, and what does not go with it."""

from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from proactivellm.backbone.thinking import Thinking
from proactivellm.core.layout import THOUGHT
from proactivellm.files.values import Counts, Weight

if TYPE_CHECKING:
    from proactivellm.train.recipe import Recipe

_OTHER_SCHEDULES = {"profile", "first_share", "wait_k"}  # keys of views of words


class ThinkingTable(Thinking):
    """Thoughts between the sentences of problems; names of control tokens, if not the usual ones.

    The full view of an objective is batch thinking: it thinks when all is read. Partial views
    think after each sentence, or so many sentences later.
    """

    # Least and most depth of a sample, drawn evenly: stages beyond it are left out of the data.
    depth: Counts = (3, 3)
    # Sentences read before the first thought in partial views, least and most, drawn evenly.
    wait_k: Counts = (1, 1)
    # Of the token that skips a thought, in the loss: where most is skipped, less teaches the model
    # to think sooner. TaYS (arXiv 2603.02872) has 0.5.
    skip_weight: Weight = 1.0

    @model_validator(mode="after")
    def _has_stages(self) -> Self:
        deepest = len(self.stages) + 1
        if self.depth[1] > deepest:
            raise ValueError(
                f"depth: {self.depth[1]}, and with these stages the deepest is {deepest}"
            )
        return self

    @property
    def tokens_alone(self) -> Thinking:
        """The control tokens, as a model folder says them."""
        return Thinking(**self.model_dump(include=set(Thinking.model_fields)))


def check_thinking(recipe: "Recipe") -> None:
    """Refuse (ValueError) a recipe of which one part thinks and another does not fit that."""
    stream, objective = recipe.stream, recipe.objective
    if stream is not None and stream.thinking is not None:
        raise ValueError(
            "stream.thinking: what is to be learnt about thoughts stands in [thinking]"
        )
    if recipe.thinking is None:
        return
    sources = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    every = [*sources, recipe.data.valid or sources[0]]
    if recipe.front_end is None and not all(source.reasoning for source in every):
        raise ValueError("[thinking] learns from problems: give the data as `reasoning`")
    if recipe.front_end is not None and not all(source.manifest for source in every):
        raise ValueError("[thinking] about media learns from a `manifest` with thoughts: give that")
    if recipe.data.concat != (1, 1):
        raise ValueError("[thinking] has one problem in a sample: set data.concat to [1, 1]")
    if recipe.distillation is not None:
        raise ValueError("[thinking] does not go with [distillation]: leave one of them out")
    if recipe.thinking.skip_weight != 1 and objective.sampled_softmax:
        raise ValueError("thinking.skip_weight does not go with sampled_softmax: leave one out")
    if objective.control_weight:
        raise ValueError("[thinking] reads sentence by sentence: control_weight has to be 0")
    if others := sorted(_OTHER_SCHEDULES & objective.model_fields_set):
        raise ValueError(f"objective.{others[0]} is of words: with [thinking] give thinking.wait_k")
    if stream is not None and (stream.early_end or stream.boundary != "word"):
        raise ValueError("[thinking] answers at the end: leave early_end and boundary out")
    if stream is not None and "layout" in stream.model_fields_set:
        if THOUGHT not in stream.make_layout().groups:
            raise ValueError(f"[thinking]: the layout {stream.layout} has no thoughts")
    if recipe.lora and not recipe.lora.merge:
        raise ValueError(
            "an adapter alone has no place for the new tokens of [thinking]: leave "
            "`merge = false` out of [lora]"
        )
