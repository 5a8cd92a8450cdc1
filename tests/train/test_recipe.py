"""Recipes: those shipped are built, and what is wrong with one is told before anything runs."""

import re
from pathlib import Path

import pytest
import torch
from tests.models import save_tiny, tiny_model
from tests.tokenizers import build
from tests.train.runs import PRETRAINED, SCRATCH, make_recipe
from transformers import AutoConfig, AutoModelForCausalLM

from proactivellm.backbone.prompt import StreamSettings, encode_prompt
from proactivellm.files.toml import load_toml
from proactivellm.tasks.data import texts
from proactivellm.tasks.item import Item
from proactivellm.train.arguments import make_arguments
from proactivellm.train.assembly import make_trainer
from proactivellm.train.build import make_backbone, make_settings
from proactivellm.train.recipe import Backbone, Recipe
from proactivellm.train.run import train
from proactivellm.train.scratch import new_model, new_tokenizer
from proactivellm.train.tokenizer import train_tokenizer

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
ITEMS = [Item("der Hund schläft", "the dog sleeps", delays=(1, 2, 3))] * 500


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_built(path, tmp_path):
    recipe = load_toml(path, Recipe)
    make_arguments(recipe, tmp_path)
    if recipe.backbone.pretrained:  # needs the hub: what can be built without it is built
        make_settings(recipe, build("byte_level")) if recipe.stream else None
        return
    tokenizer = train_tokenizer(texts(ITEMS), 300)
    settings = make_settings(recipe, tokenizer)
    assert encode_prompt(tokenizer, settings.prompt).target_head == (tokenizer.bos_token_id,)
    model = new_model(recipe.backbone, tokenizer)
    make_trainer(recipe, tmp_path, (ITEMS, ITEMS[:2]), (model, tokenizer, settings))
    # The bundled model must stay below 24 MB in half precision, with its own vocabulary.
    weights = sum(p.numel() for p in model.parameters())
    rows = model.get_input_embeddings().weight
    whole = weights + (recipe.backbone.vocab_size - rows.shape[0]) * rows.shape[1]
    assert path.stem != "tatoeba-de-en" or 2 * whole < 24e6


@pytest.mark.parametrize(
    ("asked", "computes", "trains_in_bf16"),
    [("auto", True, True), ("auto", False, False), ("bf16", False, True), ("fp32", True, False)],
)
def test_bf16_is_taken_where_it_is_fast_unless_asked_for(
    asked, computes, trains_in_bf16, tmp_path, monkeypatch
):
    monkeypatch.setattr("proactivellm.train.arguments.computes_in_bf16", lambda device: computes)
    text = SCRATCH.replace('precision = "fp32"', f'precision = "{asked}"')
    assert make_arguments(make_recipe(tmp_path, text), tmp_path).bf16 == trains_in_bf16


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("concat = [1, 2]", "conact = [1, 2]", "unknown key 'conact' in [data]; did you mean 'co"),
        ("vocab_size = 320", "vocabsize = 320", "did you mean 'vocab_size'?"),
        ("batch_size = 4", "batch_size = 0", "optimisation.batch_size: Input should be greater"),
        ("batch_size = 4", 'batch_size = "4"', "optimisation.batch_size: Input should be a valid"),
        ("concat = [1, 2]", "concat = [3, 2]", "data.concat: the lower bound 3 is above the upp"),
        ("concat = [1, 2]", "concat = [0, 2]", "data.concat.0: Input should be greater than or"),
        ("[output]", "[objective]\nfirst_share = [0.6, 0.2]\n[output]", "the lower bound 0.6 is"),
        ("[output]", "[objective]\nfirst_share = [0.6, 1.2]\n[output]", "objective.first_share.1:"),
        (
            "[output]",
            "[objective]\nkl_weight = -1.0\n[output]",
            "objective.kl_weight: Input shoul",
        ),
        ("[output]", "[stream]\nphi = -1\n[output]", "stream.phi: Input should be greater than"),
        (
            "[output]",
            '[stream]\nlayout = "diagonal"\n[output]',
            "stream.layout: give one of grouped, interleaved, reencoded, thoughts, interleaved-",
        ),
        ("[output]", "[lora]\n[output]", "[lora] adapts a pretrained backbone: set backbone.pretr"),
        (
            "[output]",
            '[lora]\nquantization = "nf4"\n[output]',
            "lora: weights of 4 bits take no adapter in: set `merge = false`",
        ),
        ('model_type = "qwen3"', "", "backbone: give either `pretrained` or `model_type`, and not"),
        ("vocab_size = 320", 'pretrained = "x"', "backbone: give either `pretrained` or `model_ty"),
        ('model_type = "qwen3"', 'pretrained = "x"', "`config` is for `model_ty"),
        ("[data.valid]\n", "[data.x]\n", "unknown key 'x' in [data]"),
        ("[data]", "chat = { think = false }\n[data]", "chat belongs to the chat template of"),
        ("[data]", 'instruction = "Say: "\n[data]', "instruction belongs to the chat template of"),
    ],
)
def test_contradictions_are_one_line_each(tmp_path, old, new, message):
    assert old in SCRATCH
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make_recipe(tmp_path, SCRATCH.replace(old, new, 1))
    assert all(line.startswith(str(tmp_path)) for line in str(caught.value).split("\n"))


def test_evaluation_needs_pairs(tmp_path):
    text = re.sub(r"\[data.valid\]\n.*\n.*\n", "", SCRATCH)
    with pytest.raises(ValueError, match=r"eval_steps needs pairs to evaluate on: add \[data.val"):
        make_recipe(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"qwen3"', '"qwen33"', "backbone.model_type: unknown 'qwen33'; did you mean 'qwen3'?"),
        ('"qwen3"', '"qwen2"', "backbone.config: qwen2 has no key 'head_dim'"),
        ('"qwen3"', '"gpt2"', "backbone.config: gpt2 has no key 'intermediate_size'"),
        ("hidden_size = 32", "hiden_size = 32", "qwen3 has no key 'hiden_size'; did you mean 'hid"),
        ("hidden_size = 32", 'hidden_size = "32"', "backbone.config does not fit: Validation erro"),
        ("head_dim = 16", "vocab_size = 16", "vocab_size follows from the tokenizer: leave it out"),
        ("vocab_size = 320", "vocab_size = 200", "backbone.vocab_size must be at least 300 "),
        ("batch_size = 4", "batch_size = 41", "do not fill one update of 41 samples"),
        ("limit = 6", "limit = 6\ntarget_column = 5", "line 1 has 2 columns"),
        ("head_dim = 16", "layer_types = ['a', 'b']", "backbone.config does not fit: "),
    ],
)
def test_what_only_the_run_can_see(tmp_path, old, new, message):
    assert old in SCRATCH
    recipe = make_recipe(tmp_path, SCRATCH.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        train(recipe, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("qwen2", "transformers loads any tokenizer of 'qwen2' as Qwen2Tokenizer, which changes"),
        ("t5", "backbone.model_type: 't5' is not a causal LM"),
        ("qwen3_vl", "backbone.model_type: 'qwen3_vl' is not a causal LM"),
    ],
)
def test_model_types_that_do_not_fit(kind, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        backbone = Backbone(model_type=kind, vocab_size=300)
        new_model(backbone, new_tokenizer(backbone, ITEMS))


def test_missing_data_file(tmp_path):
    recipe = make_recipe(tmp_path, SCRATCH)
    (tmp_path / "pairs.tsv").unlink()
    with pytest.raises(ValueError, match="cannot read .*pairs.tsv.: No such file"):
        train(recipe, tmp_path / "out")


def test_files_of_different_lengths(tmp_path):
    for name, count in (("s", 50), ("t", 49)):
        (tmp_path / name).write_text("ein Wort\n" * count)
    files = f'source = "{tmp_path / "s"}"\ntarget = "{tmp_path / "t"}"'
    recipe = make_recipe(tmp_path, SCRATCH.replace('tsv = "PAIRS"', files, 1))
    with pytest.raises(ValueError, match="s has 50 lines but .*t has 49"):
        train(recipe, tmp_path / "out")


def test_validation_without_a_pair(tmp_path):
    recipe = make_recipe(tmp_path, SCRATCH.replace('tsv = "PAIRS"\nlimit', 'tsv = "E"\nlimit', 1))
    (tmp_path / "E").write_text("\t\n")
    valid = recipe.data.valid.model_copy(update={"tsv": str(tmp_path / "E")})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"valid": valid})})
    with pytest.raises(ValueError, match=r"\[data.valid\] holds no pair with text on both sides"):
        train(recipe, tmp_path / "out")


def refusal(folder: Path, backbone: str | Path) -> str:
    """What is said about a pretrained backbone."""
    recipe = make_recipe(folder, PRETRAINED, Path(backbone))
    with pytest.raises(ValueError) as caught:
        model, tokenizer = make_backbone(recipe, ITEMS)
        make_settings(recipe, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pretrained_folder_that_is_not_there(tmp_path):
    message = refusal(tmp_path, tmp_path / "nothing")
    assert f"no model '{tmp_path / 'nothing'}': not a folder here, not a hub id" in message


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_pretrained_folder_without_a_tokenizer(tmp_path, family):
    # For some families transformers would make up an empty tokenizer and say nothing.
    tiny_model(family).save_pretrained(tmp_path / "bare")
    message = refusal(tmp_path, tmp_path / "bare")
    assert "bare" in message and "tokenizer" in message
    assert message.endswith("save one there with tokenizer.save_pretrained(folder)")


def test_pretrained_folder_without_a_model(tmp_path):
    build("byte_level").save_pretrained(tmp_path / "words")
    assert "cannot load a causal LM from" in refusal(tmp_path, tmp_path / "words")


def test_pretrained_without_a_chat_template_needs_a_prompt(tmp_path):
    folder = save_tiny("llama", tmp_path / "base")
    assert "give the prompt as raw text in [stream.prompt]" in refusal(tmp_path, folder)
    text = PRETRAINED.replace('instruction = "To English: "', "")
    text += '[stream.prompt]\nsource_head = "<s>German: "\ntarget_head = "English:"\n'
    recipe = make_recipe(tmp_path, text, folder)
    assert make_settings(recipe, build("byte_level")) == recipe.stream != StreamSettings()


def test_pretrained_tokenizer_without_an_end(tmp_path):
    folder = save_tiny("llama", tmp_path / "base", chat=True)
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"eos_token": "<|end|>",', ""))
    assert "has no EOS token, which closes the target: set `eos_token`" in refusal(tmp_path, folder)


SMALL = {"vocab_size": 450, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CANNOT_STREAM = {
    "mamba": {"state_size": 4},
    "recurrent_gemma": {"intermediate_size": 32, "num_key_value_heads": 1, "lru_width": 32},
    "jamba": {"intermediate_size": 32, "num_key_value_heads": 2, "num_experts": 2},
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
    "bloom": {},
}


@pytest.mark.parametrize("family", CANNOT_STREAM)
def test_families_that_cannot_stream_say_why(tmp_path, family):
    config = AutoConfig.for_model(family, **SMALL, **CANNOT_STREAM[family])
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "m")
    build("byte_level").save_pretrained(tmp_path / "m")
    message = refusal(tmp_path, tmp_path / "m")
    assert re.search(f"model type '{family}' (has layers of type|cannot stream: it)", message)


def test_a_family_with_more_than_a_decoder_is_found_out(tmp_path):
    """The head of Bert has a layer of its own, which would be lost."""
    shape = {"vocab_size": 450, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 32, "is_decoder": True, "initializer_range": 0.3}
    config = AutoConfig.for_model("bert", **shape, **more)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "m")
    build("byte_level").save_pretrained(tmp_path / "m")
    assert "model type 'bert' cannot stream" in refusal(tmp_path, tmp_path / "m")


def test_a_family_that_cannot_stream_is_not_trained_from_scratch_either(tmp_path):
    shape = "hidden_size = 32\nnum_hidden_layers = 2\nstate_size = 4\n[optimisation]"
    text = re.sub(r"hidden_size = 32[\s\S]*\[optimisation\]", shape, SCRATCH)
    recipe = make_recipe(tmp_path, text.replace('"qwen3"', '"mamba"'))
    with pytest.raises(ValueError, match="'mamba' has layers of type linear_attention: only lay"):
        train(recipe, tmp_path / "out")


def test_digits_are_tokens_of_their_own_where_that_is_asked_for() -> None:
    lines = ["Anna has 12 eggs.", "12 + 12 = 24, so Anna has 24 eggs."] * 9
    together, apart = (train_tokenizer(lines, 400, split_digits=each) for each in (False, True))
    assert "Ġ12" in together.tokenize("Anna has 12 eggs.")
    assert apart.tokenize("Anna has 12 eggs.") == ["ĠAnna", "Ġhas", "Ġ", "1", "2", "Ġeggs", "."]
    assert apart.decode(apart.encode("Anna has 12 eggs.")) == " Anna has 12 eggs."
