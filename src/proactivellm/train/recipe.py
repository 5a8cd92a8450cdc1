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
    """Training and validation items: pairs, questions with their answers, recordings."""

    train: DataSource | list[DataSource]  # several sources are mixed
    valid: DataSource | None = None  # never learnt from
    concat: Counts = (1, 1)  # least and most items joined into one sample
    # Leave out samples that need more positions than the model has, and say how many; else they are
    # refused.
    skip_too_long: bool = False


class Backbone(Strict):
    """A pretrained model (hub id or folder), or the shape of one trained from scratch."""

    pretrained: str | None = None
    # Run code that the pretrained model brings, with all your rights.
    trust_remote_code: bool = False
    model_type: str | None = None
    # Keyword arguments of the configuration of `model_type`.
    config: dict[str, Any] = Field(default_factory=dict)
    vocab_size: int = 8000  # of the tokenizer that is trained too

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.pretrained is None) == (self.model_type is None):
            raise ValueError("give either `pretrained` or `model_type`, and not both")
        if self.pretrained is not None and self.model_fields_set & {"config", "vocab_size"}:
            raise ValueError("`config` and `vocab_size` are for `model_type`: leave them out")
        return self


class Speech(*keys_of("speech"), Strict):  # type: ignore[misc]
    """The front end of a model that listens, with the keys of its objectives."""

    # Bundled model, folder or hub id: the front end of a model that listens, or the encoder of a
    # Whisper, such as openai/whisper-base, with a new projector.
    pretrained: str | None = None
    # Of one from scratch: keyword arguments of WhisperConfig.
    encoder: dict[str, Any] = Field(default_factory=dict)
    # Keyword arguments of WhisperFeatureExtractor.
    features: dict[str, Any] = Field(default_factory=dict)
    units: SpeechSettings = SpeechSettings()
    # Cuts out of recordings what it will hold back while streaming; without it they are heard whole
    # in training, and the default gate is saved for streaming.
    gate: GateSettings | None = None
    augment: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if self.pretrained is not None and self.model_fields_set & {"encoder", "features"}:
            raise ValueError("`encoder` and `features` are those of `pretrained`: leave them out")
        return self


class Lora(Strict):
    """Low-rank adapters instead of full fine-tuning (peft), merged into the saved model."""

    r: Count = 32  # rank
    alpha: Count = 64  # numerator of the scale alpha / r
    dropout: Share = 0.0  # on the adapter's input
    target_modules: str | list[str] = "all-linear"  # names of linear layers, or "all-linear"


class Objectives(*keys_of("objective"), ViewSettings):  # type: ignore[misc]
    """The keys of all objectives and of the views; `logits_mib` is the memory in MiB that logits
    and what is computed from them may take at once.
    """

    logits_mib: Count = 1024


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
    # Of the forward and backward passes; weights are fp32.
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    seed: Natural = 0  # of weights, order and schedules


class Output(Strict):
    """Checkpoints, progress, the saved model; all `_steps` are updates."""

    save_steps: Count = 500
    keep: Count = 2  # checkpoints kept
    log_steps: Count = 50
    eval_steps: Natural = 0  # 0 = never
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"  # of the saved weights


class Recipe(Strict):
    """A whole training run."""

    data: Data
    backbone: Backbone
    # Layout, prompt, decision boundary. Without a prompt: that beside the backbone, or its chat
    # template, or control tokens for a model from scratch.
    stream: StreamSettings | None = None
    instruction: str = ""  # text before the source in the chat template's user turn
    objective: Objectives = Objectives()
    optimisation: Optimisation = Optimisation()
    speech: Speech | None = None  # for a model that listens
    lora: Lora | None = None  # full training if left out
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
