"""Training on what the model itself has written: whole runs, and what they write on the way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models import save_tiny
from tests.train.runs import PRETRAINED, SCRATCH, logged, make_recipe
from tests.train.test_run import LORA, trainer_of

from proactivellm.rl import author
from proactivellm.rl.on_policy import OnPolicy, train
from proactivellm.train.block_attention import PACKED_ATTENTION
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train as train_without_streams
from proactivellm.train.trainer import StreamingTrainer
from proactivellm.train.views import collate, packed_output, view_rows

SHORT = SCRATCH.replace("epochs = 2", "epochs = 1").replace("eval_steps = 4", "eval_steps = 0")
SHORT = SHORT.replace("save_steps = 3", "save_steps = 2").replace("attention_dropout = 0.1\n", "")
SPSD = """
[objective]
kl_weight = 0.0
[distillation]
weight = 0.5
top_k = 20
[distillation.rollouts]
every = 3
max_tokens = 12
"""


class _Stop(Exception):
    pass


def test_on_policy_spsd_runs_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, windows = make_recipe(tmp_path, SHORT + SPSD), list[dict[int, Any]]()
    written = author.Author.write

    def watched(self: author.Author, texts: Any, max_tokens: int) -> Any:
        windows.append(written(self, texts, max_tokens))
        return windows[-1]

    monkeypatch.setattr(author.Author, "write", watched)
    whole = logged(train(recipe, tmp_path / "whole"))
    losses = [line for line in whole if "loss" in line]
    for line in losses:
        parts = line["loss_batch"] + line["loss_mslm"] + 0.5 * line["taught"]
        assert line["loss"] == pytest.approx(parts, abs=1e-3)
        assert line["taught"] > 0 and line["entropy"] > 1
    # Three updates of four samples are written at once; the last window is what is left.
    plan = 4 * len(losses)
    assert [sorted(window) for window in windows] == [
        list(range(at, min(at + 12, plan))) for at in range(0, plan, 12)
    ]
    partial = [one for window in windows for each in window.values() for one in each]
    assert all(len(one.tokens) <= 12 for one in partial)
    assert any(one.schedule[0] < len(one.units) for one in partial)

    # Killed after the fourth update, in the middle of a window: its checkpoint holds the rest.
    step = StreamingTrainer.training_step

    def dies(self: StreamingTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 4:
            raise _Stop
        return step(self, *args, **kwargs)

    monkeypatch.setattr(StreamingTrainer, "training_step", dies)
    with pytest.raises(_Stop):
        train(recipe, tmp_path / "half")
    monkeypatch.setattr(StreamingTrainer, "training_step", step)
    windows.clear()
    assert logged(train(recipe, tmp_path / "half")) == whole
    assert [min(window) for window in windows] == list(range(24, plan, 12))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> StreamingTrainer:
    folder = tmp_path_factory.mktemp("trainer")
    torch.manual_seed(0)  # of the weights
    return trainer_of(make_recipe(folder, SHORT + SPSD), folder / "out")


def prefixes_of(trainer: StreamingTrainer, **keys: Any) -> OnPolicy:
    rollouts = {"max_tokens": 10, "temperature": 0.0, **keys.pop("rollouts", {})}
    wish = {"distillation": {"rollouts": rollouts, **keys}}
    data = {"train": {"tsv": "x"}}
    backbone = {"model_type": "qwen3"}
    optimisation = {"batch_size": 4}
    tables = {"data": data, "backbone": backbone, "optimisation": optimisation, **wish}
    return OnPolicy(Recipe.model_validate(tables), trainer)


BATCH = {"index": torch.tensor([4, 5, 6, 7])}


def test_the_student_writes_as_it_is_now(trainer: StreamingTrainer) -> None:
    trainer.learner.train()
    made = prefixes_of(trainer, rollouts={"policy": "wait-k:2"})
    (batch,) = made.extend([BATCH])
    assert batch["index"] is BATCH["index"] and sorted(made.window) == [4, 5, 6, 7]
    # What follows trains on: the model is in training again, with the attention of packed views.
    model = trainer.learner.model
    assert model.training and model.config._attn_implementation == PACKED_ATTENTION
    assert model.generation_config.max_new_tokens is None
    student, ends = made.author.student, made.author.student.end_token_ids
    compared = 0
    for (one,) in made.window.values():
        assert min(one.schedule) == min(2, len(one.units)) and len(one.tokens) <= 10
        packed = collate([one.packed(student.prompt, student.layout, [one.schedule])])
        hidden = packed_output(model.eval(), packed, student.layout, student.windows)
        views, _ = view_rows(hidden.last_hidden_state, packed)
        favourite = student.parts.project(views[0]).argmax(-1).tolist()
        for token, best, units in zip(one.tokens, favourite, one.schedule, strict=True):
            if units == len(one.units) or best not in ends:  # an end is held while there is more
                assert token == best
                compared += 1
    assert compared > 12


def test_only_correct_and_short_rollouts_are_learnt_from(
    trainer: StreamingTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many tokens end a target, as a random model seldom writes the one that does.
    monkeypatch.setattr(trainer.learner.model.generation_config, "eos_token_id", [*range(60)])
    made = prefixes_of(trainer, loss="likelihood", rollouts={"group": 3, "temperature": 1.0})
    quality = [1.0, 1.0, 0.99]
    monkeypatch.setattr(author, "qualities", lambda all_: torch.tensor(quality * (len(all_) // 3)))
    (batch,) = made.extend([BATCH])
    written = [one for place in BATCH["index"].tolist() for one in made.window[place]]
    assert len(written) == 12
    ends = made.author.student.end_token_ids
    for number, one in enumerate(written):
        good = number % 3 < 2 and one.tokens[-1] in ends
        assert one.counted == [good] * len(one.tokens)
    kept = [one for one in written if any(one.counted)]
    assert 0 < len(kept) == len(batch["written_label"]) < 12
    assert len({tuple(one.tokens) for one in written}) > 6  # drawn, and not the same thrice
    # All wrong: one stands for all, so that there is a loss, and nothing of it counts.
    quality[:] = [0.0, 0.0, 0.0]
    made.window = {}
    (batch,) = made.extend([BATCH])
    assert len(batch["written_label"]) == 1 and not batch["written_counted"].any()


def test_whose_prefixes_they_are(trainer: StreamingTrainer) -> None:
    dataset = trainer.train_dataset
    made = prefixes_of(trainer, prefixes="dataset", rollouts={"group": 2})
    made.extend([BATCH])
    for place, (one, other) in made.window.items():
        texts = [dataset.items[i].target for i in dataset.plan[place]]  # type: ignore[union-attr]
        assert trainer.tokenizer.decode(one.tokens[:-1]).strip() == " ".join(texts)
        assert one.tokens == other.tokens and len(one.schedule) == len(one.tokens)
    assert any(one.schedule != other.schedule for one, other in made.window.values())
    drawn = {"temperature": 1.0}
    made = prefixes_of(trainer, prefixes="teacher", rollouts=drawn)  # the full view of the student
    made.extend([BATCH])
    offline = prefixes_of(trainer, rollouts={"policy": "offline", **drawn})
    offline.extend([BATCH])
    for (one,), (same,) in zip(made.window.values(), offline.window.values(), strict=True):
        assert one.tokens == same.tokens and same.schedule == same.whole


def test_a_curriculum_goes_back_to_what_it_passed(
    trainer: StreamingTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ladder = {"lengths": [4, 8], "steps": 2, "least_entropy": 0.5}
    recipe = Recipe.model_validate(
        {
            "data": {"train": {"tsv": "x"}, "valid": {"tsv": "x"}},
            "backbone": {"model_type": "qwen3"},
            "optimisation": {"batch_size": 4},
            "distillation": {"rollouts": {"curriculum": ladder}},
        }
    )
    made = OnPolicy(recipe, trainer, trainer.train_dataset.items[:3])  # type: ignore[union-attr]
    asked, measured = list[int](), author.Author.entropy
    told = iter([0.9, 0.1])

    def planted(self: author.Author, texts: Any, max_tokens: int) -> float:
        asked.append(max_tokens)
        assert 0 < measured(self, texts, max_tokens) < 7
        return next(told)

    monkeypatch.setattr(author.Author, "entropy", planted)
    weight = next(trainer.learner.parameters())
    start, seen = weight.detach().clone(), list[bool]()
    for number in range(1, 5):
        made.extend([{"index": BATCH["index"] + 4 * number}])
        assert max(len(p.tokens) for (p,) in made.window.values()) <= made.max_tokens
        with torch.no_grad():
            weight += 1e-3
        if number == 3:  # stopped, and taken up again
            made.save(str(tmp_path))
            made = OnPolicy(recipe, trainer, made.trainer.train_dataset.items[:3])
            made.load(str(tmp_path))
        seen.append(made.advance())
    assert asked == [4, 8] and seen == [False, False, False, True]
    torch.testing.assert_close(weight.detach(), start + 2e-3, atol=1e-6, rtol=0)


def test_without_streams_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="streams while it trains"):
        train_without_streams(make_recipe(tmp_path, SHORT + SPSD), tmp_path / "out")


def test_another_model_teaches_adapters(tmp_path: Path) -> None:
    backbone = save_tiny("llama", tmp_path / "backbone", chat=True)
    table = (
        f'[distillation]\nteacher = "{backbone}"\nloss = "power"\nalpha = 0.1\nkeep_share = 0.5\n'
    )
    rollouts = '[distillation.rollouts]\npolicy = "wait-k:1"\nmax_tokens = 8\n'
    text = PRETRAINED + LORA + table + rollouts
    recipe = make_recipe(tmp_path, text.replace("learning_rate = 1e-2", ""), backbone)
    losses = [line for line in logged(train(recipe, tmp_path / "out")) if "loss" in line]
    assert len(losses) == 5
    # The full view of the same model: it differs in what it sees, and so does the reward.
    assert all(0.001 < abs(line["taught"]) < 8 for line in losses)
    other = save_tiny("qwen2", tmp_path / "other", tokenizer="unigram")
    text = text.replace(f'teacher = "{backbone}"', f'teacher = "{other}"')
    with pytest.raises(ValueError, match="has other tokens than the student, such as"):
        train(make_recipe(tmp_path, text, backbone), tmp_path / "refused")
