"""Whole runs: what is logged, what is saved, and that it loads with nothing but transformers."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from tests.models import FAMILIES, save_tiny
from tests.train.reference import grouped_logits
from tests.train.runs import PRETRAINED, SCRATCH, logged, make_recipe
from tests.two_groups import target_of, units_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from proactivellm.backbone.prompt import Prompt, StreamSettings, load_settings
from proactivellm.core.packing import IGNORE
from proactivellm.core.schedule import expand, offline, wait_k
from proactivellm.modality.loading import load
from proactivellm.tasks.data import read_items
from proactivellm.tasks.lookup import draw
from proactivellm.train import build
from proactivellm.train.arguments import make_arguments
from proactivellm.train.assembly import make_trainer
from proactivellm.train.build import make_backbone, make_settings
from proactivellm.train.learner import Learner
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train
from proactivellm.train.tokenizer import END, SOURCE, TARGET
from proactivellm.train.trainer import StreamingTrainer
from proactivellm.train.views import collate

SHORT = SCRATCH.replace("epochs = 2", "epochs = 1")
LORA = "[lora]\nr = 4\nalpha = 64\n"
CHAT = Prompt(
    source_head="<s>user\nTo English: ",
    source_tail="<|end|>\n",
    target_head="<s>assistant\n",
)


def trainer_of(recipe: Recipe, folder) -> StreamingTrainer:
    items = read_items(recipe.data.train)
    valid = read_items(recipe.data.valid, "valid") if recipe.data.valid else []
    model, tokenizer = make_backbone(recipe, items)
    settings = make_settings(recipe, tokenizer)
    return make_trainer(recipe, folder, (items, valid), (model, tokenizer, settings))


def test_generated_questions_whose_answers_may_end_early(tmp_path):
    train_on = 'lookup = ["easy", "recital"]\ncount = 16\nseed = 1'
    text = SHORT.replace('tsv = "PAIRS"\nlimit = 6', 'lookup = "easy"\ncount = 4', 1)
    text = text.replace('tsv = "PAIRS"', train_on, 1).replace("concat = [1, 2]", "concat = [1, 1]")
    recipe = make_recipe(tmp_path, text + "[stream]\nearly_end = true\n")
    trainer = trainer_of(recipe, tmp_path / "trainer")
    (valid, *_), expected = trainer.valid, draw(["easy"], 4, split="valid")[0]
    assert trainer.tokenizer.decode(target_of(valid)[:-1]).strip() == expected.target
    assert len(units_of(valid)) - 1 == len(expected.source.split())
    settings = load_settings(train(recipe, tmp_path / "out"))
    prompt = Prompt(source_head=SOURCE, source_tail=END, target_head=TARGET)
    assert settings == StreamSettings(early_end=True, prompt=prompt)


def test_from_scratch(tmp_path):
    out = train(make_recipe(tmp_path, SCRATCH), tmp_path / "out")
    losses = [entry for entry in logged(out) if "loss" in entry]
    assert [entry["step"] for entry in losses] == list(range(1, 13))
    assert losses[-1]["loss"] < 0.8 * losses[0]["loss"]
    for entry in losses:
        parts = entry["loss_batch"] + entry["loss_mslm"] + 0.1 * entry["kl"]
        assert entry["loss"] == pytest.approx(parts, abs=1e-3)
    evaluations = [entry for entry in logged(out) if "eval_nll_offline" in entry]
    assert [entry["step"] for entry in evaluations] == [4, 8, 12]
    for name in ("offline", "wait-1", "wait-3", "wait-5"):
        first, last = evaluations[0], evaluations[-1]
        assert last[f"eval_nll_{name}"] < first[f"eval_nll_{name}"]
        assert 0 <= last[f"eval_accuracy_{name}"] <= 1
    assert sorted(path.name for path in out.glob("checkpoint-*")) == [
        "checkpoint-12",
        "checkpoint-9",
    ]

    prompt = Prompt(source_head=SOURCE, source_tail=END, target_head=TARGET)
    assert load_settings(out) == StreamSettings(prompt=prompt)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    load(out)  # it obeys the law


@pytest.mark.parametrize("adapters", ["", LORA], ids=["full", "lora"])
def test_from_a_pretrained_chat_model(tmp_path, adapters):
    backbone = save_tiny("llama", tmp_path / "backbone", chat=True)
    recipe = make_recipe(tmp_path, PRETRAINED + adapters, backbone)
    out = train(recipe, tmp_path / "out")
    losses = [entry["loss"] for entry in logged(out) if "loss" in entry]
    assert len(losses) == 5 and losses[-1] < 0.9 * losses[0]
    assert load_settings(out) == StreamSettings(prompt=CHAT)
    assert (out / "checkpoint-4" / "adapter_model.safetensors").exists() == bool(adapters)
    assert (out / "checkpoint-4" / "streaming.json").exists()

    before, after = (load_file(folder / "model.safetensors") for folder in (backbone, out))
    assert before.keys() == after.keys()  # adapters are merged: an ordinary model
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    if adapters:
        projections = {name for name in before if "_proj" in name}
        assert moved == projections
    else:
        assert moved == set(before)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model(torch.tensor([[5, 6, 7]])).logits.isfinite().all()
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(backbone).chat_template
    load(out)


def test_an_adapter_alone_streams_as_the_merged_model(tmp_path):
    backbone = save_tiny("llama", tmp_path / "backbone", chat=True)
    text = PRETRAINED + LORA
    merged = train(make_recipe(tmp_path, text, backbone), tmp_path / "merged")
    alone = train(make_recipe(tmp_path, text + "merge = false\n", backbone), tmp_path / "alone")
    assert not (alone / "model.safetensors").exists() and not (alone / "tokenizer.json").exists()
    named = json.loads((alone / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(backbone)
    one, other = load(merged), load(alone)
    assert one.end_token_ids == other.end_token_ids and one.settings == other.settings
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(one.model(ids).logits, other.model(ids).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(tmp_path, family):
    recipe = make_recipe(tmp_path, PRETRAINED, save_tiny(family, tmp_path / "backbone", chat=True))
    out = train(recipe, tmp_path / "out")
    losses = [entry["loss"] for entry in logged(out) if "loss" in entry]
    assert losses[-1] < losses[0]
    load(out)


def test_a_model_of_ours_is_trained_further_with_its_own_prompt(tmp_path):
    first = train(
        make_recipe(tmp_path, SCRATCH.replace("epochs = 2", "epochs = 1")), tmp_path / "1"
    )
    text = PRETRAINED.replace('instruction = "To English: "', "")
    second = train(make_recipe(tmp_path, text, first), tmp_path / "2")
    assert load_settings(second) == load_settings(first)
    recipe = make_recipe(tmp_path, text + "[stream]\nphi = 7\n", first)
    settings = make_settings(recipe, AutoTokenizer.from_pretrained(first))
    assert settings == load_settings(first).model_copy(update={"phi": 7})


def test_what_closes_the_target_ends_generation(tmp_path):
    backbone = save_tiny("llama", tmp_path / "backbone", chat=True)
    path = backbone / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [7]}))
    out = train(make_recipe(tmp_path, PRETRAINED, backbone), tmp_path / "out")
    end = AutoTokenizer.from_pretrained(out).eos_token_id
    assert load(out).end_token_ids == {7, end}


def test_saved_weights_have_the_precision_asked_for(tmp_path):
    text = SCRATCH.replace('dtype = "float32"', 'dtype = "float16"').replace(
        "epochs = 2", "epochs = 1"
    )
    text = text.replace('precision = "fp32"', 'precision = "bf16"')
    out = train(make_recipe(tmp_path, text), tmp_path / "out")
    weights = load_file(out / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    checkpoint = load_file(out / "checkpoint-6" / "model.safetensors")
    assert {weight.dtype for weight in checkpoint.values()} == {torch.float32}  # for exact resume
    losses = [entry["loss"] for entry in logged(out) if "loss" in entry]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("rows_per_chunk", [4096, 7])
def test_evaluation_is_the_nll_of_separate_forwards(tmp_path, monkeypatch, rows_per_chunk):
    trainer = trainer_of(make_recipe(tmp_path, SCRATCH), tmp_path / "out")
    monkeypatch.setattr(Learner, "rows_per_chunk", lambda self, num_views: rows_per_chunk)
    metrics = trainer.evaluate()
    model, encoder = trainer.model.model.eval(), trainer.encoder.text
    nll, hits, rows = {}, {}, 0
    for sample in trainer.valid:
        label = torch.tensor(target_of(sample))
        words = encoder.word_index(target_of(sample))
        rows += len(label)
        schedules = {"offline": offline(sample.num_units, words[-1] + 1)}
        schedules |= {f"wait-{k}": wait_k(k, sample.num_units, words[-1] + 1) for k in (1, 3, 5)}
        for name, g in schedules.items():
            logits = grouped_logits(model, sample, [*expand(g, words), sample.num_units], phi=0)
            log_p = logits.detach().log_softmax(-1)
            nll[name] = nll.get(name, 0.0) - float(log_p.gather(1, label[:, None]).sum())
            hits[name] = hits.get(name, 0) + int((log_p.argmax(-1) == label).sum())
    assert len({round(value, 3) for value in nll.values()}) == 4  # the schedules do differ
    for name in nll:
        assert metrics[f"eval_nll_{name}"] == pytest.approx(nll[name] / rows, abs=1e-4)
        assert metrics[f"eval_accuracy_{name}"] == pytest.approx(hits[name] / rows, abs=1e-4)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_accumulated_batches_are_one_batch(tmp_path, monkeypatch, micro):
    # One update of eight samples of different lengths, in pieces: a mean over all of its tokens.
    text = PRETRAINED.replace("batch_size = 4", f"batch_size = {micro}")
    text = text.replace("accumulation = 2", f"accumulation = {8 // micro}")
    recipe = make_recipe(tmp_path, text, save_tiny("qwen3", tmp_path / "b", chat=True))
    trainer = trainer_of(recipe, tmp_path / "out")
    items = [trainer.train_dataset[i] for i in range(8)]
    assert len({sum(label != IGNORE for label in item.label) for item in items}) > 2
    whole = trainer.model(**collate(items))
    whole["loss"].backward()
    expected = {n: p.grad.clone() for n, p in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    seen = {}

    def keep(self, model, grad_norm=None):
        seen.update({n: p.grad.clone() for n, p in model.named_parameters()})
        self.control.should_training_stop = True
        return grad_norm

    monkeypatch.setattr(StreamingTrainer, "_clip_grad_norm", lambda self, model: None)
    monkeypatch.setattr(StreamingTrainer, "_get_grad_norm", keep)
    trainer.train()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert max(float((seen[n] - expected[n]).abs().max()) for n in expected) <= 1e-6 * scale
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(float(whole["loss"].detach()), rel=1e-5)
    for name, value in zip(trainer.learner.part_names, whole["parts"].tolist(), strict=True):
        assert entry[name] == pytest.approx(value, abs=1e-4)


def test_five_updates_of_two_batches(tmp_path):
    recipe = make_recipe(tmp_path, PRETRAINED, save_tiny("qwen3", tmp_path / "b", chat=True))
    trainer = trainer_of(recipe, tmp_path / "out")
    trainer.train()
    assert trainer.state.global_step == 5
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates == pytest.approx([1e-2, 8e-3, 6e-3, 4e-3, 2e-3])  # by updates, not by batches


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_what_is_not_a_number_ends_the_run_before_it_is_learnt(tmp_path, monkeypatch, what):
    recipe = make_recipe(tmp_path, SHORT.replace("concat = [1, 2]", "concat = [1, 1]"))
    broken = []

    def spoil(self, *args, **kwargs):
        outputs = forward(self, *args, **kwargs)
        if "index" in kwargs and 16 in kwargs["index"].tolist():  # in evaluation there is none
            broken.append(kwargs["index"].tolist())
            loss = outputs["loss"]
            # The root of 0 has a gradient that is infinite.
            zero = (loss - loss.detach()).abs()
            outputs["loss"] = loss * torch.nan if what == "loss" else loss + zero.sqrt()
        return outputs

    forward = Learner.forward
    monkeypatch.setattr(Learner, "forward", spoil)
    with pytest.raises(ValueError, match=rf"the {what} of update 5 is nan .*line \d") as error:
        train(recipe, tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    dataset = trainer_of(recipe, tmp_path / "other").train_dataset
    assert all(dataset.place(i) in message for i in broken[0])
    saved = {path.name for path in (tmp_path / "out").iterdir()}
    assert saved == {".lock", "training.json", "checkpoint-3"}
    weights = load_file(tmp_path / "out" / "checkpoint-3" / "model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path):
    """With adapters, whose inputs need gradients of a frozen model; without is the easier case."""
    backbone = save_tiny("qwen3", tmp_path / "backbone", chat=True)
    text = PRETRAINED + LORA
    plain = train(make_recipe(tmp_path, text, backbone), tmp_path / "plain")
    text = text.replace("batch_size", "gradient_checkpointing = true\nbatch_size", 1)
    saving = train(make_recipe(tmp_path, text, backbone), tmp_path / "saving")
    for one, other in zip(logged(plain), logged(saving), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_scores_are_capped_in_training_as_in_sessions(tmp_path):
    # Gemma 2 caps attention scores, which the fused attention of transformers leaves out.
    cap = "attn_logit_softcapping = CAP\ninitializer_range"
    text = SHORT.replace('"qwen3"', '"gemma2"').replace("initializer_range", cap)

    def first_loss(value: float, out: str) -> float:
        folder = train(make_recipe(tmp_path, text.replace("CAP", str(value))), tmp_path / out)
        return logged(folder)[0]["loss"]

    assert first_loss(0.01, "flat") != pytest.approx(first_loss(50.0, "peaked"), rel=1e-3)


def test_code_of_the_backbone_runs_only_if_the_recipe_says_so(tmp_path, monkeypatch):
    asked = []

    def find_folder(_, trust_remote_code):
        asked.append(trust_remote_code)
        raise ValueError("enough")

    monkeypatch.setattr(build, "find_folder", find_folder)
    for key in ("", "trust_remote_code = true\n"):
        text = PRETRAINED.replace("[backbone]\n", f"[backbone]\n{key}")
        with pytest.raises(ValueError, match="enough"):
            make_backbone(make_recipe(tmp_path, text), [])
    assert asked == [False, True]


def test_a_run_that_gets_no_better_ends_early_and_reports(tmp_path, monkeypatch):
    (tmp_path / "tensorboardX.py").write_text(
        "class SummaryWriter:\n"
        "    told = []\n"
        "    def __init__(self, *args, **keywords): pass\n"
        "    def add_scalar(self, name, value, step): self.told.append((name, step))\n"
        "    def __getattr__(self, name): return lambda *args, **keywords: None\n"
    )
    text = SHORT.replace("eval_steps = 4", "eval_steps = 1").replace(
        "save_steps = 3", "patience = 2"
    )
    recipe = make_recipe(tmp_path, text + '\nreport_to = ["tensorboard"]\n')
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match="report_to names tensorboard, which is not installed"):
            make_arguments(recipe, tmp_path / "out")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # whatever is installed
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])

    def evaluations(self, *args, **keywords):
        self.log({"eval_nll_wait-3": next(losses)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, {})

    monkeypatch.setattr(StreamingTrainer, "evaluate", evaluations)
    entries = logged(train(recipe, tmp_path / "out"))
    assert [e["step"] for e in entries if "loss" in e] == [1, 2, 3, 4]
    import tensorboardX

    assert ("train/loss", 4) in tensorboardX.SummaryWriter.told
    with pytest.raises(ValueError, match="output.patience counts evaluations: set output.eval_ste"):
        make_recipe(tmp_path, text.replace("eval_steps = 1", ""))
