"""A search for the anchors of a lens, on clips that show different things.

In: what the tokens of some clips look like before the LM reads them. Out: words that tokens of all
clips are near to, where these tokens are the same vector whatever the clips show. The paper found
its anchors by inspection; this rule is ours. Legend: C = clips, N = tokens of one, V = words, D =
LM width, K = nearest words, X = colours of a token.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from proactivellm.modality.video.front_end import VideoFrontEnd
from proactivellm.modality.video.lens import ALIVE, CLASSES, Lens, nearest

ENOUGH = 8  # clips; of fewer, what some of them share was taken for an anchor (docs/LOG.md)
UNITS = 32  # of a clip that are looked at, from its beginning
SHARE = 0.01  # of the tokens of a clip that are near a word, at least
EVERYWHERE = 0.8  # of the clips in which they are
ALIKE = 0.9  # least mean cosine of tokens near an anchor, taken from different clips
ABOVE = 0.5  # and how far that of all tokens lies below it, as a share of the way up to 1
COLOURFUL = 0.25  # least squared distance of their colours, against that of all tokens
SINK_NORM = 2.0  # least norm of a sink, against the median of all tokens
_SAME = 0.5  # share of a word's tokens that a nearer one has already, so that it is left out


class Seen(NamedTuple):
    """Tokens of a clip."""

    features_ND: Tensor
    colours_NX: Tensor  # of the places that they were made of


class Group(NamedTuple):
    """Tokens of all clips that have something in common."""

    share: float  # of all tokens
    norm: float  # the median, against that of all tokens
    alike: float  # mean cosine of two in different clips; NaN if there are none
    colours: float  # mean squared distance of the colours of such, against that of all tokens


class Found(NamedTuple):
    """What a search found."""

    lens: Lens | None  # None: there is no anchor
    why: str  # there is none
    classes: dict[str, Group]  # by the name of the class
    anchors: dict[int, Group]  # tokens with this word among their nearest


def look(front_end: VideoFrontEnd, clip: str) -> Seen:
    """The tokens of the first UNITS units of a clip; ValueError if it cannot be read."""
    pixels = front_end.settings.pixels
    shape = (pixels.merge**2, 3, pixels.frames, pixels.patch**2)
    seen = []
    blocks = front_end.read([clip]).blocks
    with torch.inference_mode():
        for block in itertools.islice(blocks, UNITS):
            prepared = front_end.prepare(block)
            features_nD = front_end.embed_patches(prepared)[:, : front_end.width].float()
            num_tokens = len(features_nD)
            patches = prepared.patches.reshape(num_tokens, *shape)
            seen.append((features_nD.cpu(), patches.mean((-1, -2)).flatten(1).cpu()))
    if not seen:
        raise ValueError(f"{clip}: there is no frame in it")
    features, colours = zip(*seen, strict=True)
    return Seen(torch.cat(features), torch.cat(colours))


@torch.inference_mode()
def search(clips: Sequence[Seen], embeddings_VD: Tensor) -> Found:
    """Anchors, and how the tokens of the clips fall into classes by them.

    ValueError if there are fewer than two clips: of one, nothing tells what it shows from what any
    clip would show.
    """
    if len(clips) < 2:
        raise ValueError(f"{len(clips)} clip: give two or more, which show different things")
    tokens = _Tokens(clips)
    if tokens.alike >= ALIKE:
        why = f"tokens of different clips are all alike (mean cosine {tokens.alike:.2f})"
        return Found(None, why, {}, {})
    device = embeddings_VD.device
    ids_CNK = [nearest(clip.features_ND.to(device), embeddings_VD).cpu() for clip in clips]
    near = _common(ids_CNK, len(embeddings_VD))
    groups = {word: tokens.group(_near(ids_CNK, word)) for word in near}
    anchors = _apart([word for word in near if tokens.say_nothing(groups[word])], ids_CNK)
    if not anchors:
        why = f"{len(near)} words are near to tokens of most clips, which change with the clip"
        return Found(None, why, {CLASSES[ALIVE]: tokens.group(tokens.all)}, {})
    lens = Lens(
        vocabulary=len(embeddings_VD),
        sink=tuple(word for word in anchors if groups[word].norm >= SINK_NORM),
        dead=tuple(word for word in anchors if groups[word].norm < SINK_NORM),
    )
    class_CN = [lens.classes_of(ids_NK) for ids_NK in ids_CNK]
    present = sorted(set(torch.cat(class_CN).tolist()))
    classes = {
        CLASSES[number]: tokens.group([class_N == number for class_N in class_CN])
        for number in present
    }
    return Found(lens, "", classes, {word: groups[word] for word in anchors})


class _Tokens:
    """Tokens of clips, prepared for the question how much alike some of them are."""

    def __init__(self, clips: Sequence[Seen]) -> None:
        self._norms = [clip.features_ND.norm(dim=-1) for clip in clips]
        self._units = [F.normalize(clip.features_ND, dim=-1) for clip in clips]
        self._colours = [clip.colours_NX.double() for clip in clips]
        self._median = torch.cat(self._norms).median().item()
        self._num = sum(map(len, self._norms))
        self._distance = _distance(self._colours)
        self.alike = _product(self._units)
        self.all = [torch.ones_like(norm_N, dtype=torch.bool) for norm_N in self._norms]

    def group(self, members_CN: Sequence[Tensor]) -> Group:
        """What tokens have in common, by whether each is one of them."""

        def of(rows: Sequence[Tensor]) -> list[Tensor]:
            return [each[mask_N] for each, mask_N in zip(rows, members_CN, strict=True)]

        norms_n = torch.cat(of(self._norms))
        distance = _distance(of(self._colours))
        return Group(
            len(norms_n) / self._num,
            norms_n.median().item() / self._median if self._median else math.nan,
            _product(of(self._units)),
            distance / self._distance if self._distance else 0.0,
        )

    def say_nothing(self, group: Group) -> bool:
        """Whether tokens are the same vector whatever is seen.

        That of different colours too: where two clips are black alike, what is seen is the same.
        """
        least = max(ALIKE, self.alike + ABOVE * (1 - self.alike))
        return group.alike >= least and group.colours >= COLOURFUL


def _common(ids_CNK: Sequence[Tensor], vocabulary: int) -> list[int]:
    """The words that a share of the tokens is near to, in nearly all clips."""
    counts = [ids_NK.flatten().bincount(minlength=vocabulary) / len(ids_NK) for ids_NK in ids_CNK]
    clips_V = (torch.stack(counts) >= SHARE).sum(0)
    words: list[int] = (clips_V >= math.ceil(EVERYWHERE * len(ids_CNK))).nonzero()[:, 0].tolist()
    return words


def _near(ids_CNK: Sequence[Tensor], word: int) -> list[Tensor]:
    """Which tokens have a word among their nearest."""
    return [(ids_NK == word).any(1) for ids_NK in ids_CNK]


def _apart(words: Sequence[int], ids_CNK: Sequence[Tensor]) -> list[int]:
    """Those of the words that have tokens of their own: the same tokens are near to several."""
    ids_NK = torch.cat(list(ids_CNK))
    order = sorted(words, key=lambda word: -int((ids_NK[:, 0] == word).sum()))
    taken_N, kept = torch.zeros(len(ids_NK), dtype=torch.bool), []
    for word in order:
        near_N = (ids_NK == word).any(1)
        if (taken_N & near_N).sum() < _SAME * near_N.sum():
            kept.append(word)
            taken_N |= near_N
    return kept


def _pairs(rows_C: Sequence[Tensor]) -> int:
    """How many pairs (both ways) of rows there are in different clips."""
    sizes = [len(rows) for rows in rows_C]
    return sum(sizes) ** 2 - sum(size**2 for size in sizes)


def _product(rows_C: Sequence[Tensor]) -> float:
    """Mean inner product of two rows in different clips; NaN if there are none."""
    if not (pairs := _pairs(rows_C)):
        return math.nan
    sums_CX = torch.stack([rows.sum(0, dtype=torch.float64) for rows in rows_C])
    return float(sums_CX.sum(0).square().sum() - sums_CX.square().sum()) / pairs


def _distance(rows_C: Sequence[Tensor]) -> float:
    """Mean squared distance of two rows in different clips; NaN if there are none."""
    if not (pairs := _pairs(rows_C)):
        return math.nan
    num = sum(map(len, rows_C))
    squares = sum(float(rows.square().sum()) * (num - len(rows)) for rows in rows_C)
    return 2 * squares / pairs - 2 * _product(rows_C)
