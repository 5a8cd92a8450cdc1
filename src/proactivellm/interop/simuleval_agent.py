"""The agent that SimulEval 1.1.4 runs on text; `speech_agent` has the one for recordings.

simuleval --agent-class proactivellm.interop.simuleval_agent.StreamingAgent --policy wait-k:3 ...
"""

from argparse import ArgumentParser, Namespace

from simuleval.agents import TextToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction

from proactivellm.backbone.bundled import DEFAULT_MODEL
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.interop.whole_words import WordStream
from proactivellm.modality.loading import load
from proactivellm.policy.spec import parse_policy


def add_model_args(parser: ArgumentParser, default_model: str | None, policy: str) -> None:
    """Adds the options that all agents have; `policy` is a spec that makes an example."""
    parser.add_argument("--model", default=default_model, help="Bundled model, folder or hub id.")
    parser.add_argument("--policy", required=True, help=f"Such as wait-k:3 or {policy}.")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="Run code that the model brings."
    )


class StreamingAgent(TextToTextAgent):
    """Text to text, one session per sentence.

    Raises:
        ValueError: there is no such model or policy, or pieces are to be counted.
    """

    def __init__(self, args: Namespace) -> None:
        model = load(args.model, device=args.device, trust_remote_code=args.trust_remote_code)
        policy = parse_policy(args.policy, find_calibration(model))
        self._stream = WordStream(model, policy, args.eval_latency_unit)
        super().__init__(args)  # calls reset
        self.device = args.device

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds the agent's options to those of SimulEval."""
        add_model_args(parser, DEFAULT_MODEL, "entropy:laal=3")

    def reset(self) -> None:
        """Begins the next sentence; called by SimulEval."""
        super().reset()
        self._stream.begin()
        self._num_read = 0

    def policy(self) -> Action:
        """Reads the words that have come, and writes all that they allow.

        Every call costs SimulEval a source word, so that all that is written on one prefix goes out
        in one action; a target that is complete is said to be, or SimulEval would wait for ever.
        """
        words = self.states.source[self._num_read :]
        self._num_read += len(words)
        written = self._stream.read(words, self.states.source_finished)
        if written or self._stream.finished:
            return WriteAction(" ".join(written), finished=self._stream.finished)
        return ReadAction()
