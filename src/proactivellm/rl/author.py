"""Writes targets for the samples of a training plan: on the engine, or as the data have them.

Legend: R = target rows, S = tokens of a packed sequence, D = model width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from proactivellm.backbone.hub import find_folder
from proactivellm.core.layout import TARGET
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.forward.attention import ATTENTION
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.packed import packed_hidden
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import Fixed, Offline
from proactivellm.policy.spec import parse_policy
from proactivellm.rl.reward import qualities
from proactivellm.rl.written import Rollout, Source, write
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, source_turns
from proactivellm.tasks.item import Item, source_of, target_of
from proactivellm.train.block_attention import PACKED_ATTENTION
from proactivellm.train.objectives.divergence import entropy
from proactivellm.train.objectives.sampled import correct_and_short
from proactivellm.train.objectives.teaching import SAMPLED, Teaching
from proactivellm.train.prefixes import Prefix
from proactivellm.train.samples import ItemEncoder, prompted
from proactivellm.train.schedules import sampled_schedule
from proactivellm.train.trainer import StreamingTrainer
from proactivellm.train.views import predicting

_ROWS = 512  # of held-out rollouts, whose logits exist at once


class Author:
    """Targets by whoever `[distillation]` says, of sources that are texts.

    Args:
        teacher: another model than the one that is trained; None = there is none.
        folder: of the model that the training began with, for policies that need what is in it.
    """

    def __init__(
        self,
        trainer: StreamingTrainer,
        settings: Teaching,
        teacher: StreamingCausalLM | None,
        folder: str | None,
    ) -> None:
        self.settings, self.seed = settings, trainer.args.seed
        assert isinstance(trainer.encoder, ItemEncoder)  # [distillation] takes texts
        self.encoder, self.views = trainer.encoder.text, trainer.train_dataset.views  # type: ignore[union-attr]
        model: Any = trainer.learner.model
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        was_training = model.training
        self.student = StreamingCausalLM(base, trainer.tokenizer, trainer.settings)
        base.set_attn_implementation(PACKED_ATTENTION)
        model.train(was_training)
        self.student.folder = Path(find_folder(folder)) if folder else None
        self.teacher = teacher
        self.policy: Policy | None = None  # None: a sampled schedule for each
        if settings.rollouts.policy != SAMPLED:
            self.policy = parse_policy(settings.rollouts.policy, find_calibration(self.student))
            self.policy.bound_to(self.student).check(self.student)

    def write(
        self, texts: Sequence[tuple[int, Sequence[Item]]], max_tokens: int
    ) -> dict[int, list[Prefix]]:
        """Prefixes by the place of their sample, at least one of each.

        One that holds nothing to learn stands for samples of which none could be written.

        Args:
            texts: place in the plan and items of each sample.
            max_tokens: of a target; longer ones are cut off there.
        """
        jobs = {index: self._job(index, items) for index, items in texts}
        if self.settings.prefixes == "dataset":
            return {index: self._of_data(job) for index, job in jobs.items()}
        rollouts = self._roll_out(list(jobs.values()), max_tokens)
        written: dict[int, list[Prefix]] = {index: [] for index in jobs}
        counted = self._counted(rollouts)
        for number, (one, each) in enumerate(zip(rollouts, counted, strict=True)):
            written[one.source.job.index].append(self._prefix(one, each, number))
        for index, found in written.items():
            if not found:
                found += [self._nothing(jobs[index])]
        return written

    @torch.no_grad()
    def entropy(self, texts: Sequence[tuple[int, Sequence[Item]]], max_tokens: int) -> float:
        """Of the student per token of its own rollouts, nats, as it is now."""
        rollouts = self._roll_out([self._job(*each) for each in texts], max_tokens)
        total, number = 0.0, 0
        for one in rollouts:
            units = [unit.token_ids for unit in one.source.units]
            prefix = Prefix(units=units, tokens=one.tokens, schedule=one.schedule, counted=[])
            student = self.student
            packed = prefix.packed(student.prompt, student.layout, [one.schedule])
            with _on_engine(student, max_tokens):
                hidden_1SD = packed_hidden(student, [packed])
            columns = {name: torch.tensor([values]) for name, values in packed.columns().items()}
            hidden_RD = hidden_1SD[predicting(columns)[0].to(hidden_1SD.device)]
            for some_RD in hidden_RD.split(_ROWS):
                total += float(entropy(self.student.project(some_RD).log_softmax(-1)).sum())
            number += len(one.tokens)
        return total / max(1, number)

    def _job(self, index: int, items: Sequence[Item]) -> Job:
        if any(item.media for item in items):
            raise ValueError("[distillation] takes texts, and there are recordings among the items")
        return Job(
            index=index,
            source=source_of(items),
            reference=target_of(items),
            task=self.settings.task,
            answers=items[0].answers or None if len(items) == 1 else None,
        )

    def _roll_out(self, jobs: Sequence[Job], max_tokens: int) -> list[Rollout]:
        """What is written for each source, `group` times, as far as there is anything in it."""
        settings, model = self.settings.rollouts, self._writer()
        asked = list[tuple[Source, Policy, Sampling]]()
        for job in jobs:
            turns = source_turns(model, job)
            source = Source(job=job, units=turns[0]) if turns and turns[0] else None
            for number in range(settings.group if source else 0):
                assert source is not None
                draws = np.random.default_rng([self.seed, job.index, number])
                sampling = Sampling(
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    top_k=settings.top_k,
                    seed=int(draws.integers(2**31)),
                )
                asked.append((source, self._decides(source, draws), sampling))
        with _on_engine(model, max_tokens, trained=model is self.student):
            return write(model, asked, settings.lanes)

    def _writer(self) -> StreamingCausalLM:
        by_teacher = self.settings.prefixes == "teacher" and self.teacher is not None
        return self.teacher if by_teacher and self.teacher is not None else self.student

    def _decides(self, source: Source, draws: np.random.Generator) -> Policy:
        if self.settings.prefixes == "teacher":
            return Offline()
        if self.policy is not None:
            return self.policy
        # As many steps as the reference has; words beyond them see the whole source.
        reference = self._reference(source.job)
        words = self.encoder.word_index(reference)
        steps = words[-1] + 1 if words and self.views.boundary == "word" else len(reference) - 1
        return Fixed(trace=tuple(self.views.draw(len(source.units), max(1, steps), draws)))

    def _reference(self, job: Job) -> list[int]:
        return [*self.encoder.encode(job.source, str(job.reference)).written[TARGET].tokens]

    def _of_data(self, job: Job) -> list[Prefix]:
        draws = np.random.default_rng([self.seed, job.index, 0])
        tokens, units = self._reference(job), self._units(job)
        return [
            self._scheduled(units, tokens, [True] * len(tokens), draws)
            for _ in range(self.settings.rollouts.group)
        ]

    def _nothing(self, job: Job) -> Prefix:
        tokens, draws = self._reference(job), np.random.default_rng(0)
        return self._scheduled(self._units(job), tokens, [False] * len(tokens), draws)

    def _units(self, job: Job) -> list[list[int]]:
        turns = source_turns(self.student, job)
        return [[*unit.token_ids] for unit in turns[0]] if turns and turns[0] else [[]]

    def _prefix(self, one: Rollout, counted: list[bool], number: int) -> Prefix:
        units = [[*unit.token_ids] for unit in one.source.units]
        if self.settings.prefixes == "teacher":
            draws = np.random.default_rng([self.seed, one.source.job.index, number, 1])
            return self._scheduled(units, one.tokens, counted, draws)
        return Prefix(units=units, tokens=one.tokens, schedule=one.schedule, counted=counted)

    def _scheduled(
        self,
        units: list[list[int]],
        tokens: list[int],
        counted: list[bool],
        draws: np.random.Generator,
    ) -> Prefix:
        sample = prompted(units, tokens, self.student.prompt)
        g = sampled_schedule(sample, self.encoder, self.views, draws)
        return Prefix(units=units, tokens=tokens, schedule=g, counted=counted)

    def _counted(self, rollouts: Sequence[Rollout]) -> list[list[bool]]:
        """By rollout and token, whether it is learnt from."""
        kept = [True] * len(rollouts)
        if self.settings.loss == "likelihood" and rollouts:
            quality = qualities([one.instance for one in rollouts])
            ended = torch.tensor([one.ended for one in rollouts])
            kept = correct_and_short(quality, ended, self.settings.least_quality).tolist()
        counted = [[each] * len(one.tokens) for each, one in zip(kept, rollouts, strict=True)]
        for one, each in zip(rollouts, counted, strict=True):
            if self.settings.mask_stop and one.ended:
                each[-1] = False
        return counted


@contextmanager
def _on_engine(model: StreamingCausalLM, max_tokens: int, trained: bool = True) -> Iterator[None]:
    """A model as it streams, which writes at most so many tokens; then as it was."""
    lm: Any = model.model
    training, config = lm.training, lm.generation_config
    limit = config.max_new_tokens
    config.max_new_tokens = max_tokens
    lm.eval()
    lm.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        config.max_new_tokens = limit
        if trained:
            lm.set_attn_implementation(PACKED_ATTENTION)
            lm.train(training)
