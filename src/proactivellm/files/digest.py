"""SHA-256 of texts, files and model folders, in hexadecimal digits."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK_BYTES = 1 << 22
# Of a model folder; results may lie in it as well, and the head of a policy is one.
_MODEL_FILES = (
    *("*.safetensors", "*.index.json", "pytorch_model*.bin", "*config*.json", "streaming.json"),
    *("*token*", "vocab*", "merges.txt", "*.model", "*.jinja", "chat_template*"),
)
_HEAD = "learned.safetensors"


def digest_text(parts: Iterable[str]) -> str:
    """The digest of texts, in order; how they are cut counts as well."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def digest_file(path: str | Path) -> str:
    """The digest of a file, which is read a block at a time."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK_BYTES):
            found.update(block)
    return found.hexdigest()


def model_files(folder: str | Path) -> list[Path]:
    """The files that make a folder a model, sorted; results that lie beside it are none of them."""
    found = {file for pattern in _MODEL_FILES for file in Path(folder).glob(pattern)}
    for place in Path(folder).iterdir():  # a front end: speech/speech.json and what lies beside it
        if (place / f"{place.name}.json").is_file():
            found.update(place.iterdir())
    return sorted(file for file in found if file.is_file() and file.name != _HEAD)


def digest_model(folder: str | Path) -> str:
    """The digest of a model folder: weights, tokenizer and settings."""
    return digest_text(
        text
        for file in model_files(folder)
        for text in (str(file.relative_to(folder)), digest_file(file))
    )
