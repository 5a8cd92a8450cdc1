"""The table `[distillation]` of a recipe: who teaches, at whose prefixes, by which loss."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proactivellm.files.toml import Strict
from proactivellm.files.values import Count, Natural, Share, Weight
from proactivellm.output.log import Task

DISTILLATION = "distillation"  # the table, and the section of its objective
SELF = "self"  # the full view of the model that is trained
SAMPLED = "sampled"  # schedules as `[objective]` draws them


class Ladder(Strict):
    """Rollouts that grow longer while the student keeps its entropy, see `rl.curriculum`."""

    lengths: list[Count]  # most tokens of a rollout, rising; in place of `max_tokens`
    steps: Count  # updates at each length
    least_entropy: Weight  # nats per token of rollouts of [data.valid]
    held_out: Count = 64  # sources of [data.valid] that are rolled out


class Rollouts(Strict):
    """How prefixes are written on the engine."""

    # When the student writes: "sampled" or a policy, such as "wait-k:3" or "learned:0.9".
    policy: str = SAMPLED
    every: Count = 1  # updates whose prefixes are written together, before the first of them
    group: Count = 1  # of each source
    temperature: Weight = 1.0  # 0 = greedy
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Natural = 0  # 0 = all tokens
    max_tokens: Count = 256  # of a target; one that reaches it is cut off
    lanes: Count = 64  # streams that advance together
    curriculum: Ladder | None = None


class Teaching(Strict):
    """The keys of distillation."""

    weight: Weight = 1.0
    # "self", or what `--model` takes: a model that has the same tokens. It writes and judges as its
    # own settings say, in `teacher_layout` if that is given.
    teacher: str = SELF
    adapter: str | None = None
    teacher_layout: str | None = None
    # Of the source, what the teacher sees: all of it, or what the student sees.
    teacher_view: Literal["full", "same"] = "full"
    prefixes: Literal["student", "teacher", "dataset"] = "student"
    # The divergences "kl" and "jsd"; the rewards "power" and "log-ratio" of the token written; the
    # "likelihood" of rollouts that are correct and short, without a teacher.
    loss: Literal["kl", "jsd", "power", "log-ratio", "likelihood"] = "kl"
    mix: Share = 0.0  # of a divergence: 0 = forward, 1 = reverse
    top_k: Count = 100  # teacher tokens in a divergence, all others being one outcome
    alpha: Annotated[float, Field(gt=0.0)] = 5.0  # exponent of "power"
    # Of rewards: the share of the tokens of each rollout that is learnt from, by DIAL's score.
    keep_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    keep_beta: Weight = 1.0
    # Leave out the token that ends a target: a teacher that ends otherwise would unteach it.
    mask_stop: bool = False
    # Of "likelihood": the least quality of a rollout, and what it is measured by (chrF, F1 ...).
    least_quality: Share = 1.0
    task: Task = "translation"
    rollouts: Rollouts = Rollouts()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        rewards = self.loss in ("power", "log-ratio")
        if (rewards or self.loss == "likelihood") and self.prefixes != "student":
            raise ValueError(
                f"loss {self.loss!r} is of what the student has written: set prefixes to "
                '"student", or loss to "kl" or "jsd"'
            )
        if self.keep_share < 1 and not rewards:
            raise ValueError(f"keep_share chooses tokens of a reward, and loss is {self.loss!r}")
        if self.teacher == SELF and (self.adapter or self.teacher_layout):
            raise ValueError("adapter and teacher_layout are of another teacher: name it")
        if self.teacher == SELF and self.teacher_view == "same":
            raise ValueError('a teacher that is the student must see more: leave out "same"')
        if self.loss == "likelihood" and self.teacher != SELF:
            raise ValueError(
                "likelihood of the student's own rollouts has no teacher: leave it out"
            )
        if self.rollouts.curriculum and self.prefixes != "student":
            raise ValueError("a curriculum is of what the student writes: set prefixes to student")
        return self

    @property
    def packs_full(self) -> bool:
        """Whether the full view of the student is its teacher, and packed beside the partial."""
        return self.teacher == SELF and self.loss != "likelihood"
