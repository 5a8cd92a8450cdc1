"""One recording for a tool that sends blocks of samples and takes whole words, final ones.

In: blocks of samples. Out: words, each when our own log counts it: as soon as it is complete as far
as the stream knows, and not only when the next one begins.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from proactivellm.interop.whole_words import WholeWords
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.pipeline import MediaUnits
from proactivellm.policy.base import Policy
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.units.unit import Unit


class HeardWords:
    """A recording that is listened to block by block, and written greedily, as `evaluate` does.

    A word is whole when the next one begins, when its turn ends, or when the stream wants to hear
    more before it writes on. If it then lengthens the word ("we", then "'re"), the rest comes as a
    word of its own; `num_lengthened` counts these. (Where decisions fall at every token, a stream
    does not know where words end: there, the next word is waited for.)

    Args:
        model: has a front end.
        policy: READ or WRITE.
        rate: of the blocks, in samples per second.
    """

    def __init__(self, model: StreamingCausalLM, policy: Policy, rate: int) -> None:
        self.num_lengthened = 0
        self._model, self._policy = model, policy
        self._waiting: deque[np.ndarray] = deque()
        self._heard = iter(MediaUnits(model, _Blocks(self._waiting), rate))
        self._session: Session | None = None
        self._words = WholeWords()
        self._is_open = False  # whether the last word might be lengthened
        self._knows_words = model.settings.boundary == "word"

    def hear(self, block: np.ndarray, finished: bool) -> list[str]:
        """Takes the next block.

        Args:
            block: float32 mono [n].
            finished: whether it is the last one.

        Returns:
            The words that are whole now.

        Raises:
            ValueError: if the stream cannot go on.
        """
        self._waiting.append(block)
        units = next(self._heard)
        if finished:
            units = [*units, *next(self._heard)]
        words: list[str] = []
        for unit in units:
            words += self._read(unit)
        state = None if self._session is None else self._session.state
        if state is not None and self._knows_words and state.wants_read:
            words += self._flush()
        return words

    def _read(self, unit: Unit) -> list[str]:
        """Words that are whole because of a unit."""
        session = self._session = self._session or Session(self._model, self._policy, Sampling())
        text = "".join(write.text for write in session.push(unit))
        if text:
            self.num_lengthened += self._is_open and not text[0].isspace()
            self._is_open = False
        words = self._words.add(text)
        if session.state.closed:
            self._session = None
            words += self._words.finish()
            self._is_open = False
        return words

    def _flush(self) -> list[str]:
        """Hands over the word that is whole as far as the stream knows."""
        words = self._words.finish()
        self._is_open = self._is_open or bool(words)
        return words


class _Blocks(Iterator[np.ndarray]):
    """Blocks that wait to be heard: one for each that is asked for; none of them means the end."""

    def __init__(self, waiting: deque[np.ndarray]) -> None:
        self._waiting = waiting

    def __next__(self) -> np.ndarray:
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()
