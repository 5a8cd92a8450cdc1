"""Multiple choice: whether a prediction names the right option."""

import re
from collections.abc import Sequence

from proactivellm.metrics.answers import normalise

# A letter alone, or with a sign between it and what follows: "A cat" is no choice of A.
_LETTER = re.compile(r"\W*([^\W\d_])(?:\W*$|[^\w\s])")


def chosen(prediction: str, answers: Sequence[str]) -> float:
    """100 if a prediction names the right option, else 0.

    It does if it begins with the option's letter ("B", "(b)", "B: a cat"), or is its text after the
    normalisation of `metrics.answers`.

    Args:
        answers: the letter of the option and, where it is known, its text.
    """
    letters = {answer.upper() for answer in answers if len(answer) == 1}
    texts = {normalise(answer) for answer in answers if len(answer) > 1}
    begins = _LETTER.match(prediction)
    named = begins is not None and begins[1].upper() in letters
    return 100.0 * (named or normalise(prediction) in texts)
