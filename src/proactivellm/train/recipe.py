"""What a training recipe (TOML) may say. Unknown keys are errors that name the nearest valid one."""

from typing import Any, Literal

from pydantic import Field

from proactivellm.config import Strict
from proactivellm.model.prompt import StreamSettings
from proactivellm.tasks.translation import PairFiles


class Data(Strict):
    """Training and validation pairs.

    Attributes:
        train: pairs to learn from.
        valid: pairs to watch; never learnt from.
        concat: least and most pairs joined into one sample.
    """

    train: PairFiles
    valid: PairFiles | None = None
    concat: tuple[int, int] = (1, 1)


class Backbone(Strict):
    """A pretrained model, or the shape of one trained from scratch.

    Attributes:
        pretrained: hub id or folder.
        model_type: transformers model type for training from scratch.
        config: its configuration, as keyword arguments.
        vocab_size: size of the tokenizer trained with it.
    """

    pretrained: str | None = None
    model_type: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    vocab_size: int = 8000


class Lora(Strict):
    """Low-rank adapters instead of full fine-tuning (peft); merged into the saved model.

    Attributes:
        r: rank.
        alpha: scaling numerator.
        dropout: on the adapter's input.
        target_modules: names of linear layers, or "all-linear".
    """

    r: int = 32
    alpha: int = 64
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"


class ObjectiveRecipe(Strict):
    """Loss weights and schedules; see `losses.Objective` and `data.ViewPlan`.

    Attributes:
        batch_weight: weight of L_batch.
        mslm_weight: weight of L_MSLM.
        kl_weight: lambda.
        kl_top_k: teacher tokens in the KL.
        label_smoothing: in both cross-entropies.
        rows_per_chunk: target rows whose logits exist at once.
        num_partial: partial views per sample.
        first_share: range of the share of the source read before the first write.
    """

    batch_weight: float = 1.0
    mslm_weight: float = 1.0
    kl_weight: float = 0.1
    kl_top_k: int = 100
    label_smoothing: float = 0.0
    rows_per_chunk: int = 4096
    num_partial: int = Field(default=1, ge=1)
    first_share: tuple[float, float] = (0.0, 1.0)


class Optimisation(Strict):
    """Optimiser and schedule, passed to transformers.Trainer.

    Attributes:
        epochs: passes over the training pairs.
        batch_size: samples per step and device.
        gradient_accumulation: steps per update.
        learning_rate: peak.
        schedule: learning-rate schedule after warm-up.
        warmup_steps: linear warm-up.
        weight_decay: AdamW.
        betas: AdamW.
        max_grad_norm: clipping.
        precision: of the forward and backward passes.
        gradient_checkpointing: trade compute for memory.
        seed: of weights, order and schedules.
    """

    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=32, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    learning_rate: float = 5e-5
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    seed: int = 0


class Output(Strict):
    """Checkpoints, progress, the saved model.

    Attributes:
        save_steps: between checkpoints.
        keep: checkpoints kept.
        log_steps: between log lines.
        eval_steps: between evaluations; 0 = never.
        dtype: of the saved weights.
    """

    save_steps: int = 500
    keep: int = 2
    log_steps: int = 50
    eval_steps: int = 0
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"


class Recipe(Strict):
    """A whole training run.

    Attributes:
        data: pairs.
        backbone: model.
        stream: layout, prompt, decision boundary; the chat template if left out (pretrained only).
        instruction: text before the source in the chat template's user turn.
        objective: losses and schedules.
        optimisation: optimiser.
        lora: adapters; full training if left out.
        output: checkpoints and saving.
    """

    data: Data
    backbone: Backbone
    stream: StreamSettings | None = None
    instruction: str = ""
    objective: ObjectiveRecipe = ObjectiveRecipe()
    optimisation: Optimisation = Optimisation()
    lora: Lora | None = None
    output: Output = Output()
