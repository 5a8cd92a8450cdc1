"""What a training recipe (TOML) may say; contradictions are refused before anything runs."""

from typing import Any, Literal, Self

from pydantic import Field, create_model, model_validator

from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.files.toml import Strict
from proactivellm.files.values import Count, Counts, Natural, Share, Weight
from proactivellm.modality.base import FrontEndTable
from proactivellm.modality.kinds import KINDS
from proactivellm.tasks.data import DataSource
from proactivellm.train.objectives.catalogue import keys_of, teaches
from proactivellm.train.objectives.objective import FRONT_END
from proactivellm.train.objectives.teaching import DISTILLATION, Teaching
from proactivellm.train.schedules import ViewSettings
from proactivellm.train.thinking_table import ThinkingTable, check_thinking


class Data(Strict):
    """Training and validation items: pairs, questions with their answers, media with texts."""

    train: DataSource | list[DataSource]  # several sources are mixed
    valid: DataSource | None = None  # never learnt from
    concat: Counts = (1, 1)  # least and most items joined into one sample
    # Leave out samples that need more positions than the model has, and say how many; else they are
    # refused.
    skip_too_long: bool = False
    # Processes that prepare batches ahead; 0 = the one that trains does. A fast GPU waits for one.
    workers: Natural = 0


class Backbone(Strict):
    """A pretrained model (hub id or folder), or the shape of one trained from scratch."""

    pretrained: str | None = None
    # Run code that the pretrained model brings, with all your rights.
    trust_remote_code: bool = False
    model_type: str | None = None
    # Keyword arguments of the configuration of `model_type`.
    config: dict[str, Any] = Field(default_factory=dict)
    vocab_size: int = 8000  # of the tokenizer that is trained too
    # Whether each digit is a token of its own, without which little models do not learn to count.
    split_digits: bool = False

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.pretrained is None) == (self.model_type is None):
            raise ValueError("give either `pretrained` or `model_type`, and not both")
        of_new = sorted(self.model_fields_set & {"config", "vocab_size", "split_digits"})
        if self.pretrained is not None and of_new:
            raise ValueError(f"`{of_new[0]}` is for `model_type`: leave it out")
        return self


class Lora(Strict):
    """Low-rank adapters instead of full fine-tuning (peft)."""

    r: Count = 32  # rank
    alpha: Count = 64  # numerator of the scale alpha / r
    dropout: Share = 0.0  # on the adapter's input
    target_modules: str | list[str] = "all-linear"  # names of linear layers, or "all-linear"
    merge: bool = True  # save a whole model; otherwise the adapter alone, which names its model
    start: str = ""  # adapter with this r and alpha, folder or hub id, whose training goes on
    # Of the frozen model: "nf4" is QLoRA (Dettmers et al. 2023), 4 bits a weight.
    quantization: Literal["none", "nf4"] = "none"

    @model_validator(mode="after")
    def _can_be_merged(self) -> Self:
        if self.merge and self.quantization != "none":
            raise ValueError("weights of 4 bits take no adapter in: set `merge = false`")
        return self


class Objectives(*keys_of("objective"), ViewSettings):  # type: ignore[misc]
    """The keys of all objectives and of the views."""

    # Memory in MiB that logits and what is computed from them may take at once.
    logits_mib: Count = 1024
    # Losses over the tokens of all training targets and so many others, drawn for each step, in
    # place of the whole vocabulary (sampled softmax); 0 = the whole one.
    sampled_softmax: Natural = 0

    @model_validator(mode="after")
    def _smooths_over_all(self) -> Self:
        if self.sampled_softmax and self.label_smoothing:
            raise ValueError(
                "label_smoothing spreads over the whole vocabulary, of which sampled_softmax looks "
                "at a part: set one of them to 0"
            )
        return self


class Optimisation(Strict):
    """Optimiser (AdamW) and schedule, passed to transformers.Trainer."""

    epochs: Count = 1
    batch_size: Count = 32  # samples per step and device
    gradient_accumulation: Count = 1  # steps per update
    learning_rate: float = Field(default=5e-5, gt=0.0)  # the peak, after a linear warm-up
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: Natural = 0
    weight_decay: Weight = 0.0
    betas: tuple[Share, Share] = (0.9, 0.98)
    max_grad_norm: Weight = 1.0  # 0 = no clipping
    # Of the forward and backward passes; weights are fp32. `auto`: bf16 where the device computes
    # in it, else fp32: on a CPU without instructions for it bf16 is 20 times slower.
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    gradient_checkpointing: bool = False
    seed: Natural = 0  # of weights, order and schedules


class Output(Strict):
    """Checkpoints, progress, the saved model; all `_steps` are updates."""

    save_steps: Count = 500
    keep: Count = 2  # checkpoints kept
    log_steps: Count = 50
    eval_steps: Natural = 0  # 0 = never
    # End a run after so many evaluations without a lower `eval_nll_` of the schedule; 0 = never.
    patience: Natural = 0
    patience_schedule: Literal["offline", "wait-1", "wait-3", "wait-5"] = "wait-3"
    # Where progress goes besides the log.
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"  # of the saved weights


def _front_end_tables() -> dict[str, Any]:
    """A table for each modality that can be trained, with the keys of objectives added to it."""
    bases = {kind: known.table() for kind, known in KINDS.items() if known.table is not None}
    made = {
        kind: create_model(base.__name__, __base__=(*keys_of(FRONT_END), base))
        for kind, base in bases.items()
    }
    return {kind: (table | None, None) for kind, table in made.items()}


_FrontEnds: Any = create_model("_FrontEnds", __base__=Strict, **_front_end_tables())


class Recipe(_FrontEnds):
    """A whole training run; besides the tables below, one of a modality that is trained."""

    data: Data
    backbone: Backbone
    # Layout, prompt, decision boundary. Without a prompt: that beside the backbone, or its chat
    # template, or control tokens for a model from scratch.
    stream: StreamSettings | None = None
    instruction: str = ""  # text before the source in the chat template's user turn
    chat: dict[str, Any] = {}  # variables of the chat template, such as enable_thinking = false
    objective: Objectives = Objectives()
    # Thoughts while the source is read; a model that does not think if left out.
    thinking: ThinkingTable | None = None
    # A teacher at prefixes that are written for it, beside these objectives.
    distillation: Teaching | None = None
    optimisation: Optimisation = Optimisation()
    lora: Lora | None = None  # full training if left out
    output: Output = Output()

    @property
    def front_end(self) -> FrontEndTable | None:
        """The table of the modality that is trained, if any is."""
        return next((table for kind in KINDS if (table := getattr(self, kind, None))), None)

    @property
    def tables(self) -> dict[str, Any]:
        """The tables in which keys of objectives stand, by section."""
        return {
            "objective": self.objective,
            FRONT_END: self.front_end,
            DISTILLATION: self.distillation,
        }

    @property
    def follows_traces(self) -> bool:
        """Whether it is learnt from what each word of a target waits for."""
        objective = self.objective
        control = bool(objective.control_weight) and objective.control_trace == "data"
        return control or objective.silent_until_due

    @model_validator(mode="after")
    def _has_one_front_end(self) -> Self:
        given = [f"[{kind}]" for kind in KINDS if getattr(self, kind, None)]
        if len(given) > 1:
            raise ValueError(f"a model has one front end: give either {' or '.join(given)}")
        return self

    @model_validator(mode="after")
    def _adapts_the_lm_alone(self) -> Self:
        if self.lora and "train_encoder" in getattr(self.front_end, "model_fields_set", ()):
            if self.front_end.train_encoder:  # type: ignore[union-attr]
                raise ValueError("[lora] leaves the encoder as it is: leave train_encoder out")
        return self

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not teaches(self.tables):
            raise ValueError("batch_weight and mslm_weight are both 0: nothing would be learnt")
        return self

    @model_validator(mode="after")
    def _thinks_as_it_can(self) -> Self:
        check_thinking(self)
        return self

    @model_validator(mode="after")
    def _distils_texts(self) -> Self:
        if self.distillation is None:
            return self
        if self.front_end is not None:
            raise ValueError("[distillation] takes texts, and the recipe has a front end")
        if self.distillation.rollouts.curriculum and self.data.valid is None:
            raise ValueError("a curriculum looks at held-out rollouts: add [data.valid]")
        return self

    @model_validator(mode="after")
    def _has_traces(self) -> Self:
        sources = self.data.train if isinstance(self.data.train, list) else [self.data.train]
        silent = self.objective.silent_until_due
        if self.follows_traces and not all(source.tells_delays for source in sources):
            key = "silent_until_due = true" if silent else 'control_trace = "data"'
            other = "leave it out" if silent else 'set control_trace to "oracle"'
            raise ValueError(
                f"{key} learns from traces: give each [data.train] as `log`, the instances.log of "
                f"a policy, as `watch`, `squad`, `lookup`, or as `manifest` with evidence_s, "
                f"or {other}"
            )
        if silent and (self.objective.kl_weight or self.thinking or self.distillation):
            raise ValueError(
                "silent_until_due = true teaches what the full view would not say: set kl_weight "
                "to 0, and leave [thinking] and [distillation] out"
            )
        return self

    @model_validator(mode="after")
    def _uses_what_it_says(self) -> Self:
        if self.output.eval_steps and self.data.valid is None:
            raise ValueError("output.eval_steps needs pairs to evaluate on: add [data.valid]")
        if self.output.patience and not self.output.eval_steps:
            raise ValueError("output.patience counts evaluations: set output.eval_steps")
        if self.lora and not self.backbone.pretrained:
            raise ValueError("[lora] adapts a pretrained backbone: set backbone.pretrained")
        if self.lora and not self.lora.merge and self.objective.control_weight:
            raise ValueError(
                "an adapter alone has no place for the new token of control_weight: leave "
                "`merge = false` out of [lora]"
            )
        has_prompt = self.stream is not None and self.stream.prompt != Prompt()
        of_chat = "instruction" if self.instruction else "chat" if self.chat else ""
        if of_chat and (has_prompt or not self.backbone.pretrained):
            raise ValueError(
                f"{of_chat} belongs to the chat template of a pretrained backbone: with a prompt "
                "of your own, write it into stream.prompt.source_head"
            )
        return self
