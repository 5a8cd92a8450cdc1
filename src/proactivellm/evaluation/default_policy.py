"""The policy of a model where nobody names one."""

from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.forward.causal_lm import StreamingCausalLM

# Of a model with a calibration table that names no default, and of one without a table. In pauses
# between words the policies that look at attention write words nobody said, so that of recordings
# the default counts units with speech.
DEFAULT_POLICIES = ("entropy:laal=3", "wait-k:3")
SPEECH_POLICIES = ("wait-k:2,stride=2", "wait-k:2,stride=2")
# Of video: the model itself says when it begins, as a moment is no token of what is written.
VIDEO_POLICIES = ("wait-k:1,stride=0.001", "wait-k:1,stride=0.001")

THINKING_POLICY = "wait-k:1"  # a thought for each sentence, as soon as it is read


def default_spec(model: StreamingCausalLM, listens: bool = False) -> str:
    """Its spec; `listens` if the sources are recordings, be it of pictures."""
    if model.thinking is not None:
        return THINKING_POLICY
    calibration = find_calibration(model)
    usual, otherwise = SPEECH_POLICIES if listens else DEFAULT_POLICIES
    table_is_of_recordings = model.front_end is not None
    if listens and table_is_of_recordings and model.front_end.kind == "video":
        usual, otherwise = VIDEO_POLICIES
    if calibration is None or table_is_of_recordings != listens:
        return otherwise
    return calibration.default or usual
