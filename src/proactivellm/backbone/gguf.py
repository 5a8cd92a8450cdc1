"""A GGUF file as an ordinary model folder, unpacked once into the user's cache.

transformers reads such a file, but for minutes where the vocabulary is large, and then marks the
model as quantised, which can be neither trained nor saved.
"""

import copy
import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from proactivellm.backbone.cache import SOURCE_FILE, cache_folder
from proactivellm.backbone.folder import refusing
from proactivellm.backbone.quiet import quiet_transformers
from proactivellm.backbone.weights import check_all_loaded
from proactivellm.files.digest import digest_text
from proactivellm.files.lock import locked
from proactivellm.files.replace import replacing_in, write_json
from tokenizers import AddedToken

_MAGIC = b"GGUF"
_VERSION = "2"  # of what is unpacked
# Weights of these types stay as they are; those of all others are rounded to bf16, which is finer
# than what they were quantised to.
_KEPT = {"F32": torch.float32, "F16": torch.float16}
_CONTROL = 3  # kind of a token, as GGUF numbers them
_NEEDS = ("gguf", "accelerate")  # which the extra `gguf` brings

log = logging.getLogger(__name__)


def unpacked(file: Path) -> Path:
    """The folder in the cache that holds the model of a GGUF file; made where it is missing.

    ValueError if the file cannot be read, or what reading it needs is not installed.
    """
    file = file.resolve()
    stat = file.stat()
    key = digest_text([str(file), str(stat.st_size), str(stat.st_mtime_ns), _VERSION])
    folder = cache_folder() / "gguf" / f"{file.stem}-{key[:12]}"
    if not (folder / SOURCE_FILE).is_file():
        log.info("unpacking %s, once, to %s", file, folder)
        with locked(folder):
            with replacing_in(folder) as new:
                convert(file, new)
            write_json(folder / SOURCE_FILE, {"file": str(file)})
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file, and its tokenizer, as transformers loads them from a folder.

    ValueError as `unpacked`.
    """
    what = f"cannot read {str(file)!r}"
    _check_needs(what)
    with file.open("rb") as content:
        if content.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{what}: it is no GGUF file, or only the beginning of a download")
    place = str(file.parent)
    where = {"gguf_file": file.name}
    with quiet_transformers():
        with refusing(what), _read_once() as reader:
            config = AutoConfig.from_pretrained(place, trust_remote_code=False, **where)
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **where)
            model, info = AutoModelForCausalLM.from_pretrained(
                place,
                trust_remote_code=False,
                config=copy.deepcopy(config),
                dtype=_dtype(reader(str(file))),
                output_loading_info=True,
                **where,
            )
            controls = tokenizer.convert_ids_to_tokens(_control_ids(reader(str(file))))
        check_all_loaded(info, what)
        _settle_tokenizer(tokenizer, config)
        tokenizer.add_tokens([AddedToken(each, special=True) for each in controls])
        with refusing(f"{what}: its weights do not fit the configuration that transformers reads"):
            plain = _unmarked(model, config)
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _check_needs(what: str) -> None:
    if missing := [package for package in _NEEDS if find_spec(package) is None]:
        needs = " and ".join(missing)
        raise ValueError(f"{what}: that needs {needs}: pip install 'proactivellm[gguf]'")


@contextmanager
def _read_once() -> Iterator[Callable[[str], Any]]:
    """Yields the reader of GGUF files, which inside reads each of them once, and remembers it.

    transformers reads a file anew for configuration, tokenizer and weights, several times for some,
    and each time goes through its vocabulary token by token.
    """
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)
    try:
        yield gguf.GGUFReader
    finally:
        gguf.GGUFReader = reader


def _dtype(content: Any) -> torch.dtype:
    """That of the largest weight."""
    largest = max(content.tensors, key=lambda tensor: int(tensor.n_elements))
    return _KEPT.get(largest.tensor_type.name, torch.bfloat16)


def _control_ids(content: Any) -> list[int]:
    """Token ids that the file says no text becomes."""
    kinds = content.fields["tokenizer.ggml.token_type"]
    return [i for i, place in enumerate(kinds.data) if kinds.parts[place][0] == _CONTROL]


def _settle_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Special tokens as the file numbers them: the converters for some families mix them up."""
    for kind in ("bos_token", "eos_token"):
        token_id = getattr(config, f"{kind}_id", None)
        if isinstance(token_id, int):
            setattr(tokenizer, kind, tokenizer.convert_ids_to_tokens(token_id))
    tokenizer.clean_up_tokenization_spaces = False  # it takes away spaces before punctuation
    backend = tokenizer.backend_tokenizer
    model = json.loads(backend.to_str())["model"]
    if model["type"] == "Unigram":  # what some converters make of the BPE of SentencePiece
        backend.model = bpe(model["vocab"], tokenizer.unk_token)


def bpe(pieces: Sequence[tuple[str, float]], unknown: str | None) -> BPE:
    """The BPE of a SentencePiece vocabulary: a piece with a higher score is merged earlier."""
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
        known.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += [(score, len(left), len(right), left, right) for left, right in known]
    merges.sort(key=lambda merge: merge[:3], reverse=True)
    return BPE(
        vocab=ids,
        merges=[merge[3:] for merge in merges],
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )


def _unmarked(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the same weights that nothing says was quantised."""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype, trust_remote_code=False)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain
