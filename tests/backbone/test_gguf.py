"""A GGUF file streams as the model that it was made from, and is an ordinary model afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.gguf_models import write_gguf
from tests.models import save_tiny

from proactivellm.backbone import gguf
from proactivellm.backbone.hub import find_folder
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.modality.text import TextSegmenter
from proactivellm.policy.fixed import WaitK
from proactivellm.session.session import Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model folder, with the file tiny.gguf made of it beside; a cache of its own."""
    place = tmp_path_factory.mktemp("gguf")
    save_tiny("llama", place / "own", chat=True)
    write_gguf(place / "own", place / "tiny.gguf")
    patch = pytest.MonkeyPatch()
    patch.setenv("PROACTIVELLM_CACHE", str(place / "cache"))
    yield place
    patch.undo()


@pytest.fixture(scope="module")
def model(folder: Path) -> StreamingCausalLM:
    return load(folder / "tiny.gguf")


def streamed(model: StreamingCausalLM) -> list[tuple[int, str]]:
    model.model.generation_config.max_new_tokens = 20
    session = Session(model, WaitK(k=2))
    units = TextSegmenter(model.tokenizer).segment("Der Hund schläft auf dem Sofa .")
    return [(write.units_read, write.text) for unit in units for write in session.push(unit)]


def test_it_streams_as_the_model_it_was_made_from(model: StreamingCausalLM, folder: Path) -> None:
    own = load(folder / "own")
    read = model.model.state_dict()
    for name, weight in own.model.state_dict().items():
        torch.testing.assert_close(read[name], weight, rtol=0, atol=0)
    assert model.settings == own.settings  # the chat template is in the file
    assert model.end_token_ids == own.end_token_ids
    assert model.tokenizer.eos_token == own.tokenizer.eos_token
    assert (found := streamed(model)) and found == streamed(own)


def test_pieces_with_scores_are_merged_as_sentencepiece_does() -> None:
    """Best score first; as a unigram model they would be cut where the sum is best: ab, cd."""
    pieces = [*"abcd", "cd", "bcd", "ab", "abc"]
    scores = [-9, -9, -9, -9, -1, -2, -3, -4]
    tokens = gguf.bpe(list(zip(pieces, scores, strict=True)), None).tokenize("abcd")
    assert [token.value for token in tokens] == ["a", "bcd"]


def test_it_learns_and_is_saved(model: StreamingCausalLM, tmp_path: Path) -> None:
    ids = torch.tensor([[3, 4, 5, 6]])
    model.model(input_ids=ids, attention_mask=torch.ones(1, 1, 4, 4).tril().bool())
    model.model.requires_grad_()
    model.parts.project(torch.ones(1, 32)).sum().backward()
    assert model.model.get_output_embeddings().weight.grad is not None
    model.model.save_pretrained(tmp_path)  # which refuses what is marked as quantised
    assert not getattr(model.model, "is_quantized", False)


def test_it_is_unpacked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_folder(folder / "tiny.gguf")
    monkeypatch.setattr(gguf, "convert", None)
    assert find_folder(str(folder / "tiny.gguf")) == before


def test_what_cannot_be_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GG")
    with pytest.raises(ValueError, match="broken.gguf': it is no GGUF file, or only the beginning"):
        load(broken)
    broken.write_bytes((folder / "tiny.gguf").read_bytes()[:9000])
    with pytest.raises(ValueError, match="cannot read .*broken.gguf'") as raised:
        load(broken)
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(gguf, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(ValueError, match=r"needs gguf: pip install 'proactivellm\[gguf\]'"):
        load(broken)
    with pytest.raises(ValueError, match="no model .*not a folder here"):
        load(tmp_path / "nowhere.gguf")
