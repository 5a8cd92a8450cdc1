"""Borders of segments in a long text where the word errors are fewest: mwerSegmenter.

Matusov et al. 2005; the package mweralign (Post and Huang 2025), whose licence is GPL 3. It has an
extra, `mwer`, to itself, and only this module needs it.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate


def mwer_borders(words: Sequence[str], texts: Sequence[str]) -> list[tuple[int, int]]:
    """For each segment, its first word and the one after its last, with the fewest word errors.

    Upper and lower case of ASCII letters are the same; punctuation belongs to its word. The words
    have no white space inside, and every segment has a word. Raises a ValueError if mweralign is
    not installed.
    """
    with _silence():
        try:
            from mweralign import align_texts
        except ImportError:
            raise ValueError(
                "StreamLAAL needs mweralign, which is not installed: "
                "pip install 'proactivellm[mwer]'"
            ) from None
        wanted = "\n".join(" ".join(text.split()) for text in texts)
        lines = align_texts(wanted, " ".join(words)).split("\n")
    ends = list(accumulate(len(line.split()) for line in lines))
    assert len(ends) == len(texts) and ends[-1] == len(words), "the aligner lost a word or a line"
    return list(zip([0, *ends], ends, strict=False))


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps what the aligner prints from stderr, and its handler from the root logger."""
    # Importing the package sets the root logger up, which is the program's.
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    kept = os.dup(2)  # it prints from C++, where replacing sys.stderr has no effect
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        root.handlers[:] = handlers
        root.setLevel(level)
