"""EmbedLens (arXiv 2603.00510): what the tokens of a video are nearest to among the LM's words.

A token is compared, by cosine, with the rows of the input embeddings. Words that some tokens are
nearest to whatever a video shows are anchors: of sinks, which draw attention, and of dead tokens,
which do nothing. All others are alive. Legend: N = tokens, V = words, D = LM width, W = width of
the LM's input, which begins with the embedding itself.
"""

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from proactivellm.backbone.folder import read_object
from proactivellm.files.replace import write_json
from proactivellm.files.toml import Strict, validated

LENS_FILE = "lens.json"  # beside video.json
TOP = 3  # nearest words that are looked at, as in the paper
CLASSES = ("alive", "sink", "dead")  # a class is a place in here
ALIVE, SINK, DEAD = range(3)
_TOKENS, _WORDS = 4096, 16384  # compared at once: 256 MiB of cosines, whatever N and V are


@torch.inference_mode()
def nearest(features_NW: Tensor, embeddings_VD: Tensor, top: int = TOP) -> Tensor:
    """Ids [N, top] of the words with the largest cosine, the nearest first."""
    parts = features_NW[:, : embeddings_VD.shape[1]].split(_TOKENS)
    return torch.cat([_nearest(part_RD.float(), embeddings_VD, top) for part_RD in parts])


def _nearest(tokens_RD: Tensor, embeddings_VD: Tensor, top: int) -> Tensor:
    best_RK = tokens_RD.new_empty(len(tokens_RD), 0)
    ids_RK = torch.empty_like(best_RK, dtype=torch.long)
    for first in range(0, len(embeddings_VD), _WORDS):
        words_PD = F.normalize(embeddings_VD[first : first + _WORDS].float(), dim=-1)
        # The length of a token changes no order among its words.
        found_RK, place_RK = (tokens_RD @ words_PD.T).topk(min(top, len(words_PD)))
        best_RK = torch.cat([best_RK, found_RK], 1)
        ids_RK = torch.cat([ids_RK, place_RK + first], 1)
        best_RK, order_RK = best_RK.topk(min(top, best_RK.shape[1]))
        ids_RK = ids_RK.gather(1, order_RK)
    return ids_RK


class Lens(Strict):
    """The file `lens.json`: the anchors of a model, by token id."""

    vocabulary: int = Field(gt=0)  # V, which shows a file of another model
    sink: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _names_words(self) -> Self:
        ids = [*self.sink, *self.dead]
        if not ids:
            raise ValueError("there is no anchor in it")
        if len({*ids}) < len(ids):
            raise ValueError("an anchor stands twice in it")
        for wrong in (token for token in ids if not 0 <= token < self.vocabulary):
            raise ValueError(f"{wrong} is no token of a vocabulary of {self.vocabulary}")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a file; ValueError if there is none, or it is malformed."""
        if not Path(path).is_file():
            raise ValueError(f"{path}: there is no such file: `proactivellm lens` makes it")
        return validated(read_object(Path(path)), cls, str(path))

    def save(self, path: str | Path) -> None:
        """Replaces the file."""
        write_json(path, self.model_dump(mode="json"))

    def check(self, embeddings_VD: Tensor) -> None:
        """Raises ValueError if the lens is that of another vocabulary."""
        if len(embeddings_VD) != self.vocabulary:
            raise ValueError(
                f"the lens is of a vocabulary of {self.vocabulary}, and the model has "
                f"{len(embeddings_VD)}: make its own with `proactivellm lens`"
            )

    def classify(self, features_NW: Tensor, embeddings_VD: Tensor) -> Tensor:
        """The class of each token, int64 [N]: that of the nearest anchor among its TOP words."""
        return self.classes_of(nearest(features_NW, embeddings_VD))

    def classes_of(self, ids_NK: Tensor) -> Tensor:
        """The same of the words that are nearest to each token."""
        class_V = torch.zeros(self.vocabulary, dtype=torch.long, device=ids_NK.device)
        class_V[list(self.sink)] = SINK
        class_V[list(self.dead)] = DEAD
        found_NK = class_V[ids_NK]
        first_N1 = (found_NK != ALIVE).int().argmax(1, keepdim=True)
        return found_NK.gather(1, first_N1)[:, 0]
