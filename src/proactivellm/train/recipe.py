"""What a training recipe (TOML) may say; contradictions are refused before anything runs."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.files.toml import Strict
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.tasks.data import DataSource
from proactivellm.train.augmentation import Augmentation
from proactivellm.train.objectives.catalogue import keys_of, teaches
from proactivellm.train.schedules import ViewSettings
from proactivellm.train.values import Count, Counts, Natural, Share, Weight


class Data(Strict):
    """Training and validation items: pairs, questions with their answers, recordings.

    Attributes:
        train: several sources are mixed.
        valid: never learnt from.
        concat: least and most items joined into one sample.
        skip_too_long: leave out samples that need more positions than the model has, and say how
            many; else they are refused.
    """

    train: DataSource | list[DataSource]
    valid: DataSource | None = None
    concat: Counts = (1, 1)
    skip_too_long: bool = False


class Backbone(Strict):
    """A pretrained model (hub id or folder), or the shape of one trained from scratch.

    Attributes:
        trust_remote_code: run code that the pretrained model brings, with all your rights.
        config: keyword arguments of the configuration of `model_type`.
        vocab_size: of the tokenizer that is trained too.
    """

    pretrained: str | None = None
    trust_remote_code: bool = False
    model_type: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    vocab_size: int = 8000

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.pretrained is None) == (self.model_type is None):
            raise ValueError("give either `pretrained` or `model_type`, and not both")
        if self.pretrained is not None and self.model_fields_set & {"config", "vocab_size"}:
            raise ValueError("`config` and `vocab_size` are for `model_type`: leave them out")
        return self


class Speech(*keys_of("speech"), Strict):  # type: ignore[misc]
    """The front end of a model that listens (`modality.speech`), with the keys of its objectives.

    Attributes:
        pretrained: bundled model, folder or hub id: the front end of a model that listens, or the
            encoder of a Whisper, such as openai/whisper-base, with a new projector.
        encoder: of one from scratch: keyword arguments of WhisperConfig.
        features: keyword arguments of WhisperFeatureExtractor.
        gate: cuts out of recordings what it will hold back while streaming; without it they are
            heard whole in training, and the default gate is saved for streaming.
    """

    pretrained: str | None = None
    encoder: dict[str, Any] = Field(default_factory=dict)
    features: dict[str, Any] = Field(default_factory=dict)
    units: SpeechSettings = SpeechSettings()
    gate: GateSettings | None = None
    augment: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if self.pretrained is not None and self.model_fields_set & {"encoder", "features"}:
            raise ValueError("`encoder` and `features` are those of `pretrained`: leave them out")
        return self


class Lora(Strict):
    """Low-rank adapters instead of full fine-tuning (peft), merged into the saved model.

    Attributes:
        r: rank.
        alpha: numerator of the scale alpha / r.
        dropout: on the adapter's input.
        target_modules: names of linear layers, or "all-linear".
    """

    r: Count = 32
    alpha: Count = 64
    dropout: Share = 0.0
    target_modules: str | list[str] = "all-linear"


class Objectives(*keys_of("objective"), ViewSettings):  # type: ignore[misc]
    """The keys of all objectives and of the views; `logits_mib` is the memory in MiB that logits
    and what is computed from them may take at once.
    """

    logits_mib: Count = 1024


class Optimisation(Strict):
    """Optimiser (AdamW) and schedule, passed to transformers.Trainer.

    Attributes:
        batch_size: samples per step and device.
        gradient_accumulation: steps per update.
        learning_rate: the peak, after a linear warm-up.
        max_grad_norm: 0 = no clipping.
        precision: of the forward and backward passes; weights are fp32.
        seed: of weights, order and schedules.
    """

    epochs: Count = 1
    batch_size: Count = 32
    gradient_accumulation: Count = 1
    learning_rate: float = Field(default=5e-5, gt=0.0)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: Natural = 0
    weight_decay: Weight = 0.0
    betas: tuple[Share, Share] = (0.9, 0.98)
    max_grad_norm: Weight = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    seed: Natural = 0


class Output(Strict):
    """Checkpoints, progress, the saved model; all `_steps` are updates.

    Attributes:
        keep: checkpoints kept.
        eval_steps: 0 = never.
        dtype: of the saved weights.
    """

    save_steps: Count = 500
    keep: Count = 2
    log_steps: Count = 50
    eval_steps: Natural = 0
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"


class Recipe(Strict):
    """A whole training run.

    Attributes:
        stream: layout, prompt, decision boundary. Without a prompt: that beside the backbone, or
            its chat template, or control tokens for a model from scratch.
        instruction: text before the source in the chat template's user turn.
        speech: for a model that listens.
        lora: full training if left out.
    """

    data: Data
    backbone: Backbone
    stream: StreamSettings | None = None
    instruction: str = ""
    objective: Objectives = Objectives()
    optimisation: Optimisation = Optimisation()
    speech: Speech | None = None
    lora: Lora | None = None
    output: Output = Output()

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not teaches(dict(self)):
            raise ValueError("batch_weight and mslm_weight are both 0: nothing would be learnt")
        return self

    @model_validator(mode="after")
    def _uses_what_it_says(self) -> Self:
        if self.output.eval_steps and self.data.valid is None:
            raise ValueError("output.eval_steps needs pairs to evaluate on: add [data.valid]")
        if self.lora and not self.backbone.pretrained:
            raise ValueError("[lora] adapts a pretrained backbone: set backbone.pretrained")
        has_prompt = self.stream is not None and self.stream.prompt != Prompt()
        if self.instruction and (has_prompt or not self.backbone.pretrained):
            raise ValueError(
                "instruction belongs to the chat template of a pretrained backbone: with a prompt "
                "of your own, write it into stream.prompt.source_head"
            )
        return self
