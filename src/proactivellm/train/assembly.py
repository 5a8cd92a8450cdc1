"""From a recipe to a trainer that is ready to run: learner, samples, their plan."""

import logging
from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.hub import find_folder
from proactivellm.backbone.prompt import StreamSettings, token_id_of
from proactivellm.backbone.thinking import ThinkingIds
from proactivellm.core.packing import Sample
from proactivellm.tasks.item import Item
from proactivellm.train.arguments import make_arguments
from proactivellm.train.build import make_front_end
from proactivellm.train.fit import Fit
from proactivellm.train.learner import Learner
from proactivellm.train.objectives.catalogue import make_objectives
from proactivellm.train.objectives.likelihood import Likelihood, Skip
from proactivellm.train.patience import Patience
from proactivellm.train.recipe import Recipe
from proactivellm.train.sampled_softmax import SampledSoftmax
from proactivellm.train.samples import (
    Encoder,
    ItemEncoder,
    PackedDataset,
    SampleEncoder,
    concatenation_plan,
)
from proactivellm.train.saving import load_objectives
from proactivellm.train.schedules import ViewPlan, ViewSettings
from proactivellm.train.thoughts import ProblemEncoder, ThoughtEncoder
from proactivellm.train.trainer import StreamingTrainer
from proactivellm.train.watched_thoughts import WatchedEncoder

log = logging.getLogger(__name__)


def make_trainer(
    recipe: Recipe,
    out: Path,
    data: tuple[list[Item], list[Item]],
    parts: tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings],
) -> StreamingTrainer:
    """The trainer of a recipe, ready to run.

    Args:
        data: training and validation items.
        parts: model, tokenizer, stream settings.
    """
    items, valid = data
    model, tokenizer, settings = parts
    _check_traces(recipe, items, settings)
    learner = make_learner(recipe, model, tokenizer, settings)
    encoder = _make_encoder(recipe, learner, tokenizer, settings)
    views = ViewPlan(
        full=learner.needs_full,
        boundary=settings.boundary,
        early_end=settings.early_end,
        control=recipe.objective.control_trace if recipe.objective.control_weight else None,
        **recipe.objective.model_dump(include=set(ViewSettings.model_fields)),
    )
    args = make_arguments(recipe, out)
    fit = Fit(model, encoder, learner.layout, recipe.data.skip_too_long)
    plan = _plan(recipe, items, args.world_size, fit)
    valid = [item for item in valid if fit([item])]
    _report(fit.left_out)
    if recipe.objective.sampled_softmax:
        samples = (encoder.longest([items[i] for i in sample]) for sample in plan)
        learner.softmax = _sampled_softmax(recipe, learner, samples)
    seed = recipe.optimisation.seed
    return StreamingTrainer(
        settings=settings,
        tokenizer=tokenizer,
        valid=[encoder.join([item]) for item in valid],
        encoder=encoder,
        model=learner,
        args=args,
        train_dataset=PackedDataset(items, plan, encoder, views, learner.layout, seed),
        eval_dataset=valid or None,
        callbacks=[Patience(recipe.output.patience, recipe.output.patience_schedule)],
    )


def _check_traces(recipe: Recipe, items: Iterable[Item], settings: StreamSettings) -> None:
    """Refuses (ValueError) what does not go with learning from what words wait for."""
    if recipe.objective.silent_until_due and settings.early_end:
        raise ValueError(
            "silent_until_due = true teaches the end of stream where nothing is due yet, which "
            "would end a target with early_end = true: set one of them to false"
        )
    for item in items if recipe.follows_traces else ():
        if item.target and not (item.delays or item.evidence_s):
            place = item.place or repr(item.target[:40])
            raise ValueError(
                f"{place}: what the words wait for is not told, from "
                "which silence or the control token is to be learnt: give the line `evidence_s`"
            )


def make_learner(
    recipe: Recipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: StreamSettings,
) -> Learner:
    """The models and objectives of a recipe; these go on from what a pretrained folder keeps."""
    table, read_id = recipe.front_end, token_id_of(tokenizer, settings.read_token)
    front_end = make_front_end(table, model, tokenizer) if table else None
    objectives = make_objectives(recipe.tables, model, front_end)
    thinking, ids = recipe.thinking, ThinkingIds.of(tokenizer, settings.thinking)
    if thinking is not None and ids is not None and thinking.skip_weight != 1:
        for each in (each for each in objectives if isinstance(each, Likelihood)):
            each.skip = Skip(ids.skip, thinking.skip_weight)
    layout, logits_mib = settings.make_layout(), recipe.objective.logits_mib
    learner = Learner(model, layout, objectives, front_end, logits_mib, read_id)
    if learner.control is not None and recipe.optimisation.gradient_checkpointing:
        raise ValueError("`look` does not go with gradient_checkpointing: leave one of them out")
    if table and table.pretrained:
        load_objectives(learner, find_folder(table.pretrained), required=False)
    return learner


def _make_encoder(
    recipe: Recipe,
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    settings: StreamSettings,
) -> Encoder:
    prompt, end = settings.prompt_ids(tokenizer), tokenizer.eos_token_id
    if recipe.thinking is not None:
        ids = ThinkingIds.of(tokenizer, settings.thinking)
        assert ids is not None
        thoughts = ThoughtEncoder(tokenizer, prompt, ids, end)
        if recipe.front_end is None:
            return ProblemEncoder(thoughts, recipe.thinking)
        if learner.front_end.kind != "video":
            raise ValueError("[thinking] goes with texts and with [video]: leave it out")
        media = recipe.front_end.make_examples(learner.front_end)
        return WatchedEncoder(thoughts, recipe.thinking, media)
    table = recipe.front_end
    text = SampleEncoder(tokenizer, prompt, end)
    return ItemEncoder(text, table.make_examples(learner.front_end) if table else None)


def _sampled_softmax(recipe: Recipe, learner: Learner, samples: Iterable[Sample]) -> SampledSoftmax:
    """Over what the samples of a run teach, and tokens that are drawn."""
    taught = {id_ for each in samples for w in each.written.values() for id_ in w.tokens}
    vocabulary = learner.model.get_output_embeddings().out_features
    special = set() if learner.read_id is None else {learner.read_id}
    return SampledSoftmax(taught | special, vocabulary, recipe.objective.sampled_softmax)


def _report(left_out: list[str]) -> None:
    if left_out:
        log.warning(
            "%d samples that need more positions than the model has are left out, first %s",
            len(left_out),
            left_out[0],
        )


def _plan(recipe: Recipe, items: list[Item], num_processes: int, fit: Fit) -> list[tuple[int, ...]]:
    optimisation = recipe.optimisation
    size = optimisation.batch_size * optimisation.gradient_accumulation * num_processes
    plan = concatenation_plan(
        [fit.encoder.length(item) for item in items],
        recipe.data.concat,
        optimisation.epochs,
        size,
        optimisation.seed,
        lambda sample: fit([items[i] for i in sample]),
    )
    if not plan:
        raise ValueError(
            f"{len(items)} items, {recipe.data.concat[0]} to {recipe.data.concat[1]} in a "
            f"sample, do not fill one update of {size} samples (optimisation.batch_size x "
            "gradient_accumulation x processes): give more, or lower these"
        )
    return plan
