"""Word and character error rates of transcripts, of texts in one named normal form.

A character of a script without spaces between words (Chinese, Japanese, Thai, ...) is a word, so
that WER is the mixed error rate where such texts hold words of other scripts. Needs the extra
`speech` (jiwer), which does the alignment.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from proactivellm.metrics.bootstrap import Floats, Statistics, ratio
from proactivellm.metrics.quality import check_numbers
from proactivellm.output.scripts import apart, together

if TYPE_CHECKING:
    from jiwer import CharacterOutput, WordOutput

NORMALISER = "lower-no-punctuation"  # what `normalise` does, to be quoted with the scores
_APOSTROPHES = str.maketrans("\u2019\u2018\u02bc\uff07", "''''")
_OUTSIDE_WORDS = re.compile(r"(?<!\S)'+|'+(?!\S)")


def normalise(text: str) -> str:
    """The form in which transcripts are compared, "lower-no-punctuation".

    Unicode NFC; lower case; all forms of the apostrophe are one, and stay inside a word only;
    every other character of punctuation and every symbol (Unicode categories P and S, the hyphen
    too) is a space; white space is single spaces. Numbers, abbreviations and spellings stay.
    """
    text = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
    text = "".join(c if c == "'" or unicodedata.category(c)[0] not in "PS" else " " for c in text)
    return " ".join(_OUTSIDE_WORDS.sub(" ", text).split())


def error_rates(predictions: Sequence[str], references: Sequence[str]) -> dict[str, Statistics]:
    """WER and CER of a corpus: errors of all instances per word, or character, of all references.

    Errors are those of the alignment with the fewest; both texts are normalised. In a silent
    recording, one with an empty reference, every word written is an insertion: it counts among the
    errors, and adds nothing to the words they are divided by.

    Returns:
        `WER`, `CER`, and the kinds of errors of words, `substitutions`, `deletions`, `insertions`,
        in %: 0 at best, no upper bound, undefined if no reference has a word. Columns: errors,
        length of the reference.

    Raises:
        ValueError: there are no predictions, or not as many references, or jiwer is not installed.
    """
    check_numbers(predictions, references)
    wanted, written = [normalise(t) for t in references], [normalise(t) for t in predictions]
    try:
        from jiwer import process_characters, process_words
    except ImportError:
        raise ValueError(
            "WER and CER need jiwer, which is not installed: pip install 'proactivellm[speech]'"
        ) from None
    # Spaces between words are characters too, but not those beside a character that is a word.
    words = [[" ".join(apart(text).split()) for text in texts] for texts in (wanted, written)]
    letters = [[together(text) for text in texts] for texts in (wanted, written)]
    of_words = _errors(process_words(*words))
    of_characters = _errors(process_characters(*letters))
    num_words = [len(text.split()) for text in words[0]]
    result = {
        "WER": _rate(of_words.sum(axis=1), num_words),
        "CER": _rate(of_characters.sum(axis=1), [len(text) for text in letters[0]]),
    }
    for column, kind in enumerate(("substitutions", "deletions", "insertions")):
        result[kind] = _rate(of_words[:, column], num_words)
    return result


def _errors(output: "WordOutput | CharacterOutput") -> Floats:
    """Substitutions, deletions and insertions of each instance: [instances, 3]."""
    counts = np.zeros((len(output.alignments), 3))
    columns = {"substitute": 0, "delete": 1, "insert": 2}
    for row, chunks in zip(counts, output.alignments, strict=True):
        for chunk in chunks:
            if chunk.type != "equal":
                wanted = chunk.ref_end_idx - chunk.ref_start_idx
                row[columns[chunk.type]] += wanted or chunk.hyp_end_idx - chunk.hyp_start_idx
    return counts


def _rate(errors: Floats, lengths: Sequence[int]) -> Statistics:
    return Statistics(np.stack([errors, np.array(lengths, np.float64)], axis=1), _percent)


def _percent(sums: Floats) -> Floats:
    return 100 * ratio(sums)
