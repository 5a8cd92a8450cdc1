"""The agent that SimulEval 1.1.4 runs on recordings.

simuleval --agent-class proactivellm.interop.speech_agent.SpeechAgent --policy wait-k:3
  --source recordings.txt --target transcripts.txt --source-segment-size 320 ...
"""

from argparse import ArgumentParser, Namespace

import numpy as np
from simuleval.agents import SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction

from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.interop.heard_words import HeardWords
from proactivellm.interop.simuleval_agent import add_model_args
from proactivellm.interop.whole_words import cutter_of
from proactivellm.modality.kinds import KINDS
from proactivellm.modality.loading import front_end_of, load
from proactivellm.modality.speech.files import to_mono
from proactivellm.policy.spec import parse_policy


class SpeechAgent(SpeechToTextAgent):
    """Speech to text, one session per turn of a recording.

    Words come out as `HeardWords` has them: when the log of `evaluate` counts them. A word that is
    lengthened afterwards comes in two, as what SimulEval was given stays; its log then has a word
    more than that of `evaluate`.

    Raises:
        ValueError: there is no such model or policy, the model does not listen, or pieces are to
            be counted.
    """

    def __init__(self, args: Namespace) -> None:
        self._unit = args.eval_latency_unit
        cutter_of(self._unit)  # which refuses what it does not know
        self._model = load(args.model, device=args.device, trust_remote_code=args.trust_remote_code)
        front_end_of(self._model, "speech")
        if args.no_gate:
            self._model.front_end.gate = None
        self._policy = parse_policy(args.policy, find_calibration(self._model))
        super().__init__(args)  # calls reset
        self.device = args.device

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds the agent's options to those of SimulEval."""
        add_model_args(parser, KINDS["speech"].default_model, "entropy:laal=800")
        parser.add_argument("--no-gate", action="store_true", help="Listen to silence too.")

    def reset(self) -> None:
        """Begins the next recording; called by SimulEval."""
        super().reset()
        self._words: HeardWords | None = None

    def policy(self) -> Action:
        """Hears the samples that have come, and writes all that they allow.

        SimulEval asks once for each segment, and, after the last one, once in all: everything goes
        out then.
        """
        # What was heard is taken from the states, or a list of floats would grow without end.
        samples, self.states.source = self.states.source, []
        finished = self.states.source_finished
        written: list[str] = []
        if samples:
            block = to_mono(np.asarray(samples, np.float32).reshape(len(samples), -1))
            if self._words is None:
                rate = self.states.source_sample_rate
                self._words = HeardWords(self._model, self._policy, rate, self._unit)
            written = self._words.hear(block, finished)
        if written or finished:
            return WriteAction(" ".join(written), finished=finished)
        return ReadAction()
