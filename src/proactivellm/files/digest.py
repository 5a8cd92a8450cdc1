"""Content told apart: of texts, files and model folders, by SHA-256."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK_BYTES = 1 << 22
# Of a model folder; results may lie in it as well.
_MODEL_FILES = (
    *("*.safetensors", "*.index.json", "pytorch_model*.bin", "*config*.json", "streaming.json"),
    *("*token*", "vocab*", "merges.txt", "*.model", "*.jinja", "chat_template*"),
)


def digest_text(parts: Iterable[str]) -> str:
    """The content of texts, in order.

    Args:
        parts: of any length.

    Returns:
        Hexadecimal digits, the same for the same texts.
    """
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def digest_file(path: str | Path) -> str:
    """The content of a file.

    Args:
        path: the file; it is read whole, a block at a time.

    Returns:
        Hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK_BYTES):
            found.update(block)
    return found.hexdigest()


def model_files(folder: str | Path) -> list[Path]:
    """The files that make a model folder a model.

    Args:
        folder: of a model; what is calibrated, trained or measured beside it does not count.

    Returns:
        Files, sorted by name.
    """
    found = {file for pattern in _MODEL_FILES for file in Path(folder).glob(pattern)}
    for place in Path(folder).iterdir():  # a front end: speech/speech.json and what lies beside it
        if (place / f"{place.name}.json").is_file():
            found.update(place.iterdir())
    return sorted(file for file in found if file.is_file())


def digest_model(folder: str | Path) -> str:
    """The content of a model folder: weights, tokenizer and settings.

    Args:
        folder: of a model.

    Returns:
        Hexadecimal digits.
    """
    return digest_text(
        text
        for file in model_files(folder)
        for text in (str(file.relative_to(folder)), digest_file(file))
    )
