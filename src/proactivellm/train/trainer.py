"""transformers.Trainer over packed views: losses by part, evaluation by schedule, exact resume."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.core.packing import Sample, pack
from proactivellm.train.accumulation import share_counts
from proactivellm.train.checkpoints import load_checkpoint
from proactivellm.train.learner import Learner
from proactivellm.train.prefixes import Prefixes
from proactivellm.train.samples import Encoder
from proactivellm.train.saving import save_checkpoint, saving
from proactivellm.train.sharded import check_optimiser, check_sharding, whole
from proactivellm.train.stopping import leave_signals
from proactivellm.train.views import collate

MOST_PLACES = 4  # samples that a message names


class StreamingTrainer(Trainer):
    """Trains a `Learner`; its checkpoints are model folders with `streaming.json` and tokenizer.

    Args:
        valid: samples for evaluation, already encoded.
        encoder: knows under which schedules those are watched.
    """

    # Read by newer releases of transformers; older ones ask whether `get_batch_samples` counted.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        settings: StreamSettings,
        tokenizer: PreTrainedTokenizerBase,
        valid: list[Sample],
        encoder: Encoder,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_collator=collate, **kwargs)
        check_sharding(self.accelerator)
        self.settings = settings
        self.tokenizer = tokenizer
        self.valid = valid
        self.encoder = encoder
        self.parts: list[Tensor] = []  # of each update since the last log line
        self.window: list[dict[str, Any]] = []  # micro-batches of the update under way
        self.model_accepts_loss_kwargs = True
        self.prefixes: Prefixes | None = None  # what a teacher judges, beside the samples

    @property
    def learner(self) -> Learner:
        """What is trained, without what it is wrapped in."""
        learner: Learner = self.accelerator.unwrap_model(self.model)
        return learner

    def get_train_dataloader(self) -> DataLoader:
        """See `Trainer`; the processes that prepare batches leave it to this one when to stop."""
        prepared: DataLoader = super().get_train_dataloader()
        loader = getattr(prepared, "base_dataloader", prepared)  # what accelerate wraps
        loader.worker_init_fn = partial(leave_signals, loader.worker_init_fn)
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of the next update; their losses are means over all of its tokens."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return [], None
        if self.prefixes is not None:
            batches = self.prefixes.extend(batches)
        accelerator = self.accelerator
        self.window = share_counts(
            batches,
            self.learner.count,
            lambda n: accelerator.reduce(n.to(device), "sum"),
            accelerator.num_processes,
        )
        self.parts.append(torch.zeros((), device=device))
        return self.window, len(self.window)  # any number: losses are whole as they are

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """What a batch adds to the loss of the update; its parts are kept for the next log line."""
        outputs = model(**inputs)
        self._stop_unless_finite("loss", outputs["loss"].detach(), [inputs])
        self.parts[-1] = self.parts[-1] + outputs["parts"]
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = whole(super()._get_grad_norm(model, grad_norm=grad_norm))
        self._stop_unless_finite("gradient norm", norm, self.window)
        return norm

    def _stop_unless_finite(
        self, name: str, value: Tensor, batches: Sequence[dict[str, Tensor]]
    ) -> None:
        """Ends the run on all processes before what is not a number is learnt, or saved."""
        failed = (~value.isfinite()).int().to(self.args.device)
        if not self.accelerator.reduce(failed, "sum"):
            return
        indices = [int(i) for batch in batches for i in batch.get("index", ())]
        dataset: Any = self.train_dataset
        places = "; ".join(dataset.place(i) for i in indices[:MOST_PLACES])
        rest = len(indices) - MOST_PLACES
        raise ValueError(
            f"the {name} of update {self.state.global_step + 1} is {float(value):g}"
            f"{'' if failed else ' here, and not a number on another process'} (samples: {places}"
            f"{f'; and {rest} more' if rest > 0 else ''}): nothing of it was learnt or saved; look "
            "at these samples, or lower optimisation.learning_rate"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each loss part since the last line."""
        if "loss" in logs and self.parts:
            mean = torch.stack(self.parts).mean(0)
            means = self.accelerator.reduce(mean, "mean").tolist()
            names = zip(self.learner.part_names, means, strict=True)
            logs |= {name: round(value, 4) for name, value in names}
            self.parts.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss and next-token accuracy of the validation samples, offline and streaming."""
        model = self.model_wrapped.eval()
        totals: Tensor | float = 0.0
        names: list[str] = []
        loader: DataLoader = DataLoader(
            self.valid,  # type: ignore[arg-type]
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=list,
        )
        for samples in loader:
            by_name = [self.encoder.watched(sample) for sample in samples]
            names = list(by_name[0])
            pairs = zip(samples, by_name, strict=True)
            packed = [pack(s, list(views.values()), self.learner.layout) for s, views in pairs]
            batch = {k: v.to(self.args.device) for k, v in collate(packed).items()}
            totals = totals + model(scored=True, **batch)["scores"]
        metrics = {}
        for name, (nll, hits, rows) in zip(names, torch.as_tensor(totals).tolist(), strict=True):
            metrics[f"{metric_key_prefix}_nll_{name}"] = round(nll / rows, 4)
            metrics[f"{metric_key_prefix}_accuracy_{name}"] = round(hits / rows, 4)
        model.train()
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with saving(f"{self.args.output_dir}/checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:  # all processes come here, some with their part of a model
            return
        folder = output_dir or self.args.output_dir
        assert folder is not None
        save_checkpoint(self.learner, (self.tokenizer, self.settings), folder, state_dict)
        torch.save(self.args, f"{folder}/training_args.bin")
        if self.prefixes is not None:
            self.prefixes.save(folder)

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """Weights are loaded while they are whole, before anything shards them."""
        if resume_from_checkpoint:
            check_optimiser(self.accelerator, resume_from_checkpoint)
            load_checkpoint(self.learner, resume_from_checkpoint)
            if self.prefixes is not None:
                self.prefixes.load(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        pass  # `train` has done so
