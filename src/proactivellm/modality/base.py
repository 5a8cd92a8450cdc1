"""What a modality other than text must have: a front end, and an ear for each source.

Nothing after it knows what the payload was: a session reads units, a log counts milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from proactivellm.core.unit import Unit


class Media(NamedTuple):
    """A source as it arrives: `rate` samples, or frames, a second, in arrays [n, ...] of those that
    arrive together.
    """

    rate: int
    blocks: Iterator[np.ndarray]


class Ear(Protocol):
    """A front end at work on one source."""

    def push(self, block: np.ndarray, now_s: float) -> list[Unit]:
        """Takes what arrived next.

        Args:
            block: [n, ...] samples or frames.
            now_s: how much of the source has arrived with it, in seconds.

        Returns:
            The units that are complete now, whose `end_s` is `now_s`. A final unit ends a turn: the
            next one begins another, which is streamed afresh.
        """
        ...

    def finish(self, now_s: float) -> list[Unit]:
        """Ends the source; returns its last units."""
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
        """Embeddings [n, H] of a whole source, those of its units one after another.

        `media` is all of it, at the rate the front end works with.
        """
        ...

    def save(self, model_folder: Path, dtype: torch.dtype) -> None:
        """Writes `KIND/KIND.json` and all else that `load` reads into the folder of the model."""
        ...

    @classmethod
    def load(cls, model_folder: Path, width: int, device: str) -> Self:
        """Reads what `save` wrote, for inference; `width` is H, of the LM's embeddings.

        ValueError if it is broken, or does not fit the LM.
        """
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Its weights, as those of any torch module."""
        ...
