"""A whole Whisper, offline: what it writes, and a folder for it made of another format."""

import runpy
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.modality.speech.fronts import random_mel, save_whisper
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperForConditionalGeneration,
)

from proactivellm.modality.speech import offline_whisper
from proactivellm.modality.speech.offline_whisper import OfflineWhisper
from tokenizers import Tokenizer as Backend
from tokenizers import models

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[3] / "tools" / "whisper_folder.py"))

START, END, NEVER, NO_TIMES = 3, 2, 7, 9
NUM_FRAMES = 320  # all that the positions of the tiny model reach


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> OfflineWhisper:
    folder = save_whisper(tmp_path_factory.mktemp("whisper"))
    words = {START: "<|startoftranscript|>", NO_TIMES: "<|notimestamps|>"}
    vocabulary = {words.get(number, f"w{number}"): number for number in range(50)}
    backend = Backend(models.WordLevel(vocabulary, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    GenerationConfig(
        decoder_start_token_id=START, eos_token_id=END, suppress_tokens=[NEVER]
    ).save_pretrained(folder)
    return OfflineWhisper(folder)


def test_it_writes_what_is_likeliest_after_all_that_it_wrote(
    whisper: OfflineWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_whisper, "_MOST_TOKENS", 12)
    states_1SD = whisper.hear(random_mel(NUM_FRAMES))
    assert whisper.prompt == [START, NO_TIMES]
    text, confidence = whisper.write(states_1SD)
    known, scores = [*whisper.prompt], []
    with torch.inference_mode():
        while len(scores) < 12:
            logits_V = whisper.model(
                decoder_input_ids=torch.tensor([known]), encoder_outputs=(states_1SD,)
            ).logits[0, -1]
            logits_V[NEVER] = -torch.inf
            score, best = logits_V.log_softmax(-1).max(-1)
            scores.append(float(score))
            if best == END:
                break
            known.append(int(best))
    assert text == whisper.tokenizer.decode(known[2:], skip_special_tokens=True).strip()
    assert confidence == pytest.approx(np.mean(scores), abs=1e-3)


def as_ctranslate2(model: WhisperForConditionalGeneration) -> dict[str, Tensor]:
    """Its weights under the names of CTranslate2, which fuses projections of one input."""
    state, found = model.state_dict(), {}
    for side in ("encoder", "decoder"):
        heads = getattr(model.config, f"{side}_attention_heads")
        found[f"{side}/num_heads"] = torch.tensor(heads, dtype=torch.int16)
        positions = state[f"model.{side}.embed_positions.weight"]
        found[f"{side}/position_encodings/encodings"] = positions
        for layer in range(getattr(model.config, f"{side}_layers")):
            prefix = f"model.{side}.layers.{layer}"
            for place, names in TOOL["_PARTS"].items():
                for leaf in ("weight", "bias"):
                    pieces = [state.get(f"{prefix}.{name}.{leaf}") for name in names]
                    some = [piece for piece in pieces if piece is not None]
                    if some:  # keys have no bias: zeros stand there
                        whole = torch.cat([0 * some[0] if p is None else p for p in pieces])
                        found[f"{side}/layer_{layer}/{place}/{leaf}"] = whole
        for leaf, name in (("weight", "gamma"), ("bias", "beta")):
            found[f"{side}/layer_norm/{name}"] = state[f"model.{side}.layer_norm.{leaf}"]
    for conv in ("conv1", "conv2"):
        for leaf in ("weight", "bias"):
            found[f"encoder/{conv}/{leaf}"] = state[f"model.encoder.{conv}.{leaf}"]
    return found | {"decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"]}


def write_binary(file: Path, variables: dict[str, Tensor]) -> None:
    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    content = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for key, tensor in variables.items():
        kind = {torch.float32: 0, torch.int16: 2}[tensor.dtype]
        content += name(key) + struct.pack("<B", tensor.dim())
        content += struct.pack(f"<{tensor.dim()}IBI", *tensor.shape, kind, tensor.nbytes)
        content += tensor.contiguous().numpy().tobytes()
    file.write_bytes(content)


def test_weights_of_ctranslate2_find_their_places(whisper: OfflineWhisper, tmp_path: Path) -> None:
    variables, file = as_ctranslate2(whisper.model), tmp_path / "model.bin"
    write_binary(file, variables)
    made = TOOL["to_whisper"](TOOL["read"](file), START, END).state_dict()
    expected = whisper.model.state_dict()
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in made)
    write_binary(file, {k: v for k, v in variables.items() if k != "encoder/conv1/bias"})
    with pytest.raises(ValueError, match=r"\['model.encoder.conv1.bias'\] are missing"):
        TOOL["to_whisper"](TOOL["read"](file), START, END)
    file.write_bytes(struct.pack("<I", 7) + file.read_bytes()[4:])
    with pytest.raises(ValueError, match="WhisperSpec of version 7, not a WhisperSpec of 6"):
        TOOL["read"](file)
