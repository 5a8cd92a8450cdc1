"""One recording for a tool that sends blocks of samples and takes whole words, final ones.

In: blocks of samples. Out: words, each when our own log counts it: as soon as it is complete as far
as the stream knows, not only when the next one begins.
"""

import numpy as np

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.interop.whole_words import cutter_of
from proactivellm.policy.base import Policy
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Hearing, Streams


class HeardWords:
    """A recording that is heard block by block, and written greedily, as `evaluate` does.

    A word is whole when the next one begins, when its turn ends, or when the stream wants to hear
    more before it writes on. If it then lengthens the word ("we", then "'re"), the rest comes as a
    word of its own; `num_lengthened` counts these. (Where decisions fall at every token, a stream
    does not know where words end: there, the next word is waited for.) Characters are whole when
    they are written.

    Args:
        model: one with a front end.
        policy: decides.
        rate: of the blocks, in samples per second.
        unit: "word", or "char"; see `cutter_of`.
    """

    def __init__(
        self, model: StreamingCausalLM, policy: Policy, rate: int, unit: str = "word"
    ) -> None:
        self.num_lengthened = 0
        streams = Streams(model, policy, sampling=Sampling())
        self._stream = streams.open(hearing=Hearing(model, rate))
        self._words = cutter_of(unit)
        self._is_open = False  # whether the last word might be lengthened
        self._knows_words = model.settings.boundary == "word"

    def hear(self, block: np.ndarray, finished: bool) -> list[str]:
        """Takes the next block, float32 mono [n], and returns the words that are whole now.

        Raises:
            ValueError: the stream cannot go on.
        """
        self._stream.push(block)
        if finished:
            self._stream.close()
        words: list[str] = []
        for event in self._stream.events():
            if event.kind == "WRITE":
                self.num_lengthened += self._is_open and not event.text[0].isspace()
                self._is_open = False
                words += self._words.add(event.text)
            elif event.kind == "END":
                self._is_open = False
                words += self._words.finish()
        if self._knows_words and self._stream.state.wants_read and not self._stream.ended:
            whole = self._words.finish()  # as far as the stream knows
            self._is_open = self._is_open or bool(whole)
            words += whole
        return words
