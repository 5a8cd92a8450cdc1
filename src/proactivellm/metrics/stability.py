"""Stability of what was shown: how much a policy that may revise its output takes back."""

from collections.abc import Callable, Sequence
from itertools import pairwise

Split = Callable[[str], list[str]]


def normalized_erasure(history: Sequence[str], split: Split = str.split) -> float | None:
    """NE (Arivazhagan et al. 2020, re-translation): words taken back per word of the final text.

    `sum_{t>=2} (|o_{t-1}| - |LCP(o_t, o_{t-1})|) / |o_final|` in words: 0 for append-only output,
    1 if as many words were taken back as remain; None if words were taken back and none remain. A
    text that only continues the one before it, even within a word, takes nothing back.

    Args:
        history: every text that was shown for one instance, oldest first.
        split: cuts a text into words, or into characters where there are no spaces between words.
    """
    erased = erased_words(history, split)
    if not erased:
        return 0.0
    final_length = len(split(history[-1]))
    return erased / final_length if final_length else None


def erased_words(history: Sequence[str], split: Split = str.split) -> int:
    """Words that were taken back, the numerator of NE, of the texts shown, oldest first.

    Over a corpus, their sum per word of all final texts is how simulstream has NE.
    """
    return sum(_erased_between(old, new, split) for old, new in pairwise(history))


def _erased_between(old: str, new: str, split: Split) -> int:
    if new.startswith(old):  # also where its last word was shown in part
        return 0
    old_words, new_words = split(old), split(new)
    kept = 0
    for old_word, new_word in zip(old_words, new_words, strict=False):
        if old_word != new_word:
            break
        kept += 1
    return len(old_words) - kept
