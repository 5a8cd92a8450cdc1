"""Model folders that something is wrong with: one function each, of a tiny folder that works."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"
QUERY = "model.layers.0.self_attn.q_proj.weight"
Change = Callable[[Path], object]


def setting(file: str = "config.json", **values: Any) -> Change:
    """Other values in a JSON file of the folder, which is made if it is not there."""

    def change(folder: Path) -> None:
        path = folder / file
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | values))

    return change


def content(file: str, text: str | bytes) -> Change:
    """Another content of a file."""
    return lambda folder: (folder / file).write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )


def cut(file: str, size: int) -> Change:
    """A file that ends too early."""
    return lambda folder: os.truncate(folder / file, size)


def weights(change: Callable[[dict[str, Tensor]], object]) -> Change:
    """Other weights in the file."""

    def rewrite(folder: Path) -> None:
        stored = load_file(folder / WEIGHTS)
        change(stored)
        save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def lose_a_shard(folder: Path) -> None:
    """Two shards, of which the second is lost."""
    stored = sorted(load_file(folder / WEIGHTS).items())
    half, where = len(stored) // 2, {}
    for number, part in enumerate((stored[:half], stored[half:]), start=1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file(dict(part), folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys(dict(part), name)
    (folder / WEIGHTS).unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()
    index = {"metadata": {}, "weight_map": where}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


class _RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def pickled_code(folder: Path) -> None:
    """Weights as a pickle that would make a file `mark`."""
    (folder / WEIGHTS).unlink()
    torch.save({QUERY: _RunsCode(folder / "mark")}, folder / "pytorch_model.bin")


# What is wrong, and what of it is told.
BROKEN: dict[str, tuple[Change, str]] = {
    "weights missing": (weights(lambda w: w.pop(QUERY)), rf"lack 1 weight \({QUERY}\)"),
    "weights of other names": (
        weights(lambda w: [w.update({f"x.{name}": w.pop(name)}) for name in list(w)]),
        r"lack 25 weights \(lm_head.weight, .* and 22 more\), .* no place for 24 weights \(x\.",
    ),
    "weights too many": (
        weights(lambda w: w.update({"model.layers.9.norm.weight": torch.ones(2)})),
        r"no place for 1 weight \(model.layers.9.norm.weight\)",
    ),
    "weights of another shape": (
        weights(lambda w: w.update({QUERY: torch.ones(4, 4)})),
        rf"{QUERY} has the shape \[4, 4\] in the file and \[32, 32\] by config.json",
    ),
    "weights cut": (cut(WEIGHTS, 3000), f"{WEIGHTS} is cut or broken .*copy it anew"),
    "weights empty": (cut(WEIGHTS, 0), f"{WEIGHTS} is cut or broken"),
    "weights in git lfs": (
        content(WEIGHTS, "version https://git-lfs.github.com/spec/v1\nsize 9\n"),
        f"{WEIGHTS} only points to weights: .*git lfs pull",
    ),
    "weights without a shard": (lose_a_shard, "model-00002-of-00002.safetensors, .*not there"),
    "weights pickled": (pickled_code, "pickle that wants to run code: take them as .safetensors"),
    "weights of another vocabulary": (
        setting(vocab_size=100),
        r"embed_tokens.weight has the shape \[432, 32\] in the file and \[100, 32\]",
    ),
    "config cut": (cut("config.json", 100), "config.json is not JSON .*restore it"),
    "config empty": (cut("config.json", 0), "config.json is not JSON .it is empty"),
    "config a list": (content("config.json", "[]"), "config.json holds no JSON object"),
    "config not UTF-8": (content("config.json", b"\xff"), "config.json is not UTF-8"),
    "size as text": (setting(hidden_size="32"), "'hidden_size' expected int, got str"),
    "layers of another model": (setting(num_hidden_layers=3), r"`num_hidden_layers` \(3\)"),
    "negative size": (setting(hidden_size=-4), "negative dimension -4"),
    "no heads": (setting(num_attention_heads=0), "ZeroDivisionError"),
    "unknown activation": (setting(hidden_act="nosuch"), "hidden_act = 'nosuch'"),
    "unknown model type": (setting(model_type="nosuch"), "config.json: .*`nosuch`"),
    "unknown rope type": (
        setting(rope_parameters={"rope_type": "nosuch", "rope_theta": 1e4}),
        "rope type 'nosuch', which transformers does not know: it has default, linear",
    ),
    "rope type without its values": (
        setting(rope_parameters={"rope_type": "yarn"}),
        "causal LM .*config.json: .*'yarn': {'factor'}",
    ),
    "unknown dtype": (setting(dtype="float99"), "config.json: .*float99"),
    "tokenizer cut": (cut("tokenizer.json", 100), "tokenizer.json is not JSON"),
    "tokenizer a list": (content("tokenizer.json", "[]"), "tokenizer.json holds no JSON object"),
    "tokenizer settings cut": (cut("tokenizer_config.json", 9), "tokenizer_config.json is not"),
    "tokenizer class a number": (
        setting("tokenizer_config.json", tokenizer_class=3),
        "cannot load a tokenizer from .*AttributeError",
    ),
    "end of text no id": (
        setting("generation_config.json", eos_token_id="</s>"),
        "eos_token_id = '</s>' .*give token ids from 0 to 431",
    ),
    "end of text negative": (
        setting("generation_config.json", eos_token_id=-1),
        "eos_token_id = -1 ",
    ),
    "end of text too large": (
        setting("generation_config.json", eos_token_id=[2, 432]),
        r"eos_token_id = \[2, 432\] ",
    ),
    "end of text nothing": (setting("generation_config.json", eos_token_id=[]), r"= \[\] "),
    "end of text in config.json": (setting(eos_token_id="</s>"), "'eos_token_id' .*'</s>'"),
    "generation settings cut": (cut("generation_config.json", 9), "generation_config.json is not"),
    "longest target as text": (
        setting("generation_config.json", max_new_tokens="many"),
        "not supported between instances of 'str' and 'int'",
    ),
    "template broken": (
        content("chat_template.jinja", "{% for x in %}"),
        "chat template cannot be used: TemplateSyntaxError: Expected an expression",
    ),
    "template that raises": (
        content("chat_template.jinja", "{{ raise_exception('Only\nuser!') }}"),
        "chat template cannot be used: TemplateError: Only user!$",
    ),
    "template without end": (
        content("chat_template.jinja", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        "chat template cannot be used: RecursionError",
    ),
    "template that breaks out": (
        content("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "chat template cannot be used: SecurityError: .*'__class__' of 'str' object is unsafe",
    ),
    "template not UTF-8": (content("chat_template.jinja", b"\xff"), "can't decode byte 0xff"),
    "adapter beside the model": (content("adapter_config.json", "{}"), "a model and an adapter"),
    "quantised by what is not there": (
        setting(quantization_config={"quant_method": "awq", "bits": 4}),
        "cannot load a causal LM from .*AWQ",
    ),
    "settings of the wrong type": (content("streaming.json", '{"phi": "3"}'), "phi: .*not '3'"),
    "settings beyond all positions": (
        content("streaming.json", '{"phi": 99999999999999999999}'),
        "phi: a whole number of more than 64 bits",
    ),
}
