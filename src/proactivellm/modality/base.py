"""The interfaces of a modality other than text: a front end, and an ear for each source.

Nothing after it knows what the payload was: a session reads units, a log counts milliseconds. To be
trained by a recipe, it has more: a table of its own there (`FrontEndTable`) and `Examples`.
Legend: A = sources, T = frames of features, P = encoder outputs, D = their width, E = embeddings,
H = width of the LM.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.prompt import Prompt
from proactivellm.core.packing import MEDIA_ID
from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.files.toml import Strict
from proactivellm.modality.stages import Stage


class Media(NamedTuple):
    """A source as it arrives."""

    rate: int  # samples, or frames, a second
    blocks: Iterator[np.ndarray]  # [n, ...] of those that arrive together


class Ear(Protocol):
    """A front end at work on one source."""

    def push(self, block: np.ndarray, now_s: float) -> list[Unit]:
        """Takes what arrived next, [n, ...]; returns the units that are complete now.

        `now_s` is how much of the source has arrived with it, in seconds, and the `end_s` of the
        units. A final unit ends a turn: the next one begins another, which is streamed afresh.
        """
        ...

    def finish(self, now_s: float) -> list[Unit]:
        """Ends the source; returns its last units."""
        ...


AnyEar = TypeVar("AnyEar", bound=Ear)


@dataclass(frozen=True)
class Heard(Generic[AnyEar]):
    """What arrived next for an ear."""

    ear: AnyEar
    block: np.ndarray | None  # None = the source has ended
    now_s: float  # as for `Ear.push`


@runtime_checkable
class WorksInStages(Protocol):
    """What an ear has besides if its work falls into stages that may overlap."""

    def stages(self) -> list[Stage]:
        """They take a `Heard` of this ear, one after the other; the last one gives its units."""
        ...


class FrontEnd(Protocol):
    """A module that makes embeddings of a causal LM from a payload, kept in the model's folder."""

    @property
    def kind(self) -> str:
        """Of payload, one of `kinds.KINDS`; names its folder, and the source type of a log."""
        ...

    @property
    def unit_s(self) -> float:
        """Seconds of the payload in a unit."""
        ...

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What a user may change while it runs, for the notes beside a log."""
        ...

    @property
    def identity(self) -> str:
        """Settings that, with the weights, decide what it computes."""
        ...

    def read(self, files: Sequence[str]) -> Media:
        """Opens files as one source, in blocks of a unit; ValueError if a file cannot be read."""
        ...

    def open(self, rate: int) -> Ear:
        """An ear for one source of so many samples or frames a second."""
        ...

    def embed(self, media: np.ndarray) -> Tensor:
        """Embeddings [n, H] of a whole source at its rate, those of its units in order."""
        ...

    def save(self, model_folder: Path, dtype: torch.dtype) -> None:
        """Writes `KIND/KIND.json` and all else that `load` reads into the folder of the model."""
        ...

    @classmethod
    def load(cls, model_folder: Path, width: int, device: str) -> Self:
        """Reads what `save` wrote, for an LM of width H; ValueError if it does not fit."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Its weights, as those of any torch module."""
        ...


@runtime_checkable
class HearsTogether(Protocol):
    """What a front end has besides if it can work on several sources at once."""

    def hear(self, heard: Sequence[Heard[Any]]) -> list[list[Unit] | Exception]:
        """For each, of different ears, what `push` or `finish` gives or raises, up to rounding.

        The other ears do not notice if one fails.
        """
        ...


class TrainedFrontEnd(FrontEnd, Protocol):
    """A front end that a recipe can train: it sees whole sources, several at a time.

    Its outputs are what objectives such as CTC look at; embeddings are made of them.
    """

    @property
    def width(self) -> int:
        """D."""
        ...

    def encode(self, features: Tensor, num_frames_A: Tensor) -> Tensor:
        """Outputs [A, P, D] of features [A, T, ...], padded on the right."""
        ...

    def num_outputs(self, num_frames_A: Tensor) -> Tensor:
        """P of each source; the outputs after them mean nothing."""
        ...

    def embed_outputs(self, outputs_APD: Tensor, num_frames_A: Tensor) -> Tensor:
        """Embeddings [A, E, H]; of each source as many as `Example.units` have MEDIA_ID.

        They may be wider than those of texts, which are 0 there.
        """
        ...

    def set_attention(self, name: str) -> None:
        """Takes an attention function of transformers' registry, if it attends by any."""
        ...

    def save(
        self, model_folder: Path, dtype: torch.dtype, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        """As any front end; `weights` where its own tensors are parts of the state dict (FSDP)."""
        ...


def media_units(sizes: Sequence[int]) -> list[list[int]]:
    """Units of so many embeddings each, as `Example` has them."""
    return [[MEDIA_ID] * size for size in sizes]


class TooLongError(ValueError):
    """A source is longer than what a front end can take as a whole."""


class Example(NamedTuple):
    """A source, or several joined, as a front end is trained on it."""

    features: np.ndarray  # float32 [T, ...], as `encode` takes them
    units: list[list[int]]  # token ids of each unit: MEDIA_ID for an embedding, else of a text
    grids: Sequence[Grid] = ()  # how those of each unit lie in space; empty: they do not
    says_nothing: bool = False  # augmentation left nothing in it that could be written


class Examples(Protocol):
    """Reads sources to train on, each of them one or more files; several are joined."""

    @property
    def kind(self) -> str:
        """Of payload, as the front end has it."""
        ...

    @property
    def length_per_s(self) -> float:
        """By how many characters of text a second of a source makes a sample longer, about."""
        ...

    @property
    def unit_s(self) -> float | None:
        """Seconds of a source in a unit; None where some of it is cut out, or its pace changed."""
        ...

    def read(
        self, sources: Sequence[tuple[str, ...]], rng: np.random.Generator | None = None
    ) -> Example:
        """One example of all sources; augmented as a function of `rng`, None = not at all."""
        ...

    def longest(self, sources: Sequence[tuple[str, ...]]) -> list[list[int]]:
        """`units` of the same at its longest, whatever augmentation draws.

        TooLongError if the front end could not take that.
        """
        ...


class FrontEndTable(Strict):
    """The table of a recipe that says what front end is trained; named by its kind."""

    # Module of an LM that is the front end, where it is a part of one; adapters leave it alone.
    inside: ClassVar[str] = ""
    # Bundled model, folder or hub id that it is taken from; None = it is new.
    pretrained: str | None = None

    def load_backbone(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase] | None:
        """A pretrained LM that the front end is a part of, whole and in fp32, and its tokenizer.

        None: the front end is a part of no LM. ValueError if there is none of its kind in `folder`.
        """
        return None

    def make_prompt(self, lm_type: str, tokenizer: PreTrainedTokenizerBase) -> Prompt | None:
        """The prompt for a source of this kind; None: it is that for texts."""
        return None

    @abstractmethod
    def make_front_end(
        self, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> TrainedFrontEnd:
        """The front end for an LM, in fp32; ValueError where the table does not fit.

        It may be a part of the LM, with which its weights are then saved.
        """

    @abstractmethod
    def make_examples(self, front_end: Any) -> Examples:
        """What reads the sources that this front end is trained on."""
