"""Add layers to a decoder that change nothing at first, so that its training goes on deeper.

    python tools/deepen.py src/proactivellm/assets/tatoeba-de-en runs/tatoeba-de-en/start

After every layer comes a copy of it whose outputs are zero (block expansion; Wu et al. 2024,
arXiv:2401.02415): twice as many layers, the same function. For families whose layers end in `o_proj` and
`down_proj` (Llama, Qwen, Mistral, Gemma).
"""

import argparse
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "streaming.json")
LAYER = re.compile(r"(.*\blayers\.)(\d+)(\..*)")
LAST = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def deepened(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Layer i becomes layers 2i and 2i + 1; what is outside of layers stays."""
    new = {}
    for name, value in weights.items():
        value = value.float()
        if match := LAYER.fullmatch(name):
            start, layer, rest = match[1], int(match[2]), match[3]
            new[f"{start}{2 * layer}{rest}"] = value
            silent = rest.removeprefix(".") in LAST
            new[f"{start}{2 * layer + 1}{rest}"] = value * 0 if silent else value.clone()
        else:
            new[name] = value
    return new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    how = parser.parse_args()
    config = AutoConfig.from_pretrained(how.model, trust_remote_code=False)
    config.num_hidden_layers *= 2
    config.layer_types = [kind for kind in config.layer_types for _ in range(2)]
    config.dtype = torch.float32
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    lost = model.load_state_dict(deepened(load_file(how.model / "model.safetensors")), strict=False)
    missing = [name for name in lost.missing_keys if name != "lm_head.weight"]  # tied
    if missing or lost.unexpected_keys:
        raise SystemExit(f"{how.model}: layers of another kind: {missing + lost.unexpected_keys}")
    model.save_pretrained(how.out)
    for name in SIDE_FILES:
        shutil.copy(how.model / name, how.out)
    print(f"{how.out}: {config.num_hidden_layers} layers")


if __name__ == "__main__":
    main()
