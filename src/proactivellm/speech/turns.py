"""Listening to a recording turn by turn: a gate cuts it, and each turn is a stream of its own.

In: 16 kHz mono samples in pushes of any length. Out: the units of turns; the last unit of a turn,
or the bare end marker after it, is final. Silence between turns reaches no encoder.
"""

import numpy as np

from proactivellm.audio.gate import Gate, GateSettings, Piece
from proactivellm.speech.front_end import SpeechFrontEnd
from proactivellm.speech.stream import SpeechStream
from proactivellm.units.unit import Unit


class Listener:
    """Turns of one recording.

    Args:
        front_end: in eval mode.
        gate: when a turn begins and ends; None = all of the recording is one turn.

    Raises:
        ValueError: if the front end cannot be streamed, or the gate's detector is not installed.
    """

    def __init__(self, front_end: SpeechFrontEnd, gate: GateSettings | None) -> None:
        self.front_end = front_end
        self._gate = None if gate is None else Gate(gate)
        self._turn: SpeechStream | None = front_end.stream() if gate is None else None

    def push(self, samples: np.ndarray) -> list[Unit]:
        """Takes the next samples.

        Args:
            samples: [N], 16 kHz, in [-1, 1].

        Returns:
            The units that are complete now; times are those of the recording. A final unit ends a
            turn, and the next one begins another.
        """
        if self._gate is not None:
            return self._pass(self._gate.push(samples))
        assert self._turn is not None
        return self._turn.push(samples)

    def finish(self) -> list[Unit]:
        """Ends the recording; nothing may be pushed after it.

        Returns:
            The last units; none if no turn is open.
        """
        if self._gate is not None:
            return self._pass(self._gate.finish())
        assert self._turn is not None
        return self._turn.finish()

    def _pass(self, pieces: list[Piece]) -> list[Unit]:
        units = []
        for piece in pieces:
            if len(piece.samples):
                self._turn = self._turn or self.front_end.stream()
                units += self._turn.push(piece.samples, piece.start_s)
            if piece.ends_turn and self._turn is not None:
                units += self._turn.finish()
                self._turn = None
        return units
