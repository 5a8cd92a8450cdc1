"""Loading the model that a command names, quietly. Heavy imports are inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from proactivellm.cli.shared import warn

if TYPE_CHECKING:
    from proactivellm.model.causal_lm import StreamingCausalLM


def load_model(
    name: str | None,
    device: str,
    dtype: str = "auto",
    quantization: str = "none",
    trust_remote_code: bool = False,
) -> "StreamingCausalLM":
    """Loads a model, with its front end if it listens, without the chatter of the libraries below.

    Args:
        name: bundled model, folder or hub id; None = the bundled default.
        device: as torch names it.
        dtype: of the weights, by name; auto leaves it to the device.
        quantization: none or int8.
        trust_remote_code: run code that the model brings.

    Returns:
        The model.

    Raises:
        ValueError: there is no such model, device or precision, or the model cannot stream.
    """
    import torch

    from proactivellm.model.causal_lm import StreamingCausalLM
    from proactivellm.model.loading import DEFAULT_MODEL
    from proactivellm.model.precision import parse_dtype
    from proactivellm.speech.loading import listens, load_speech

    weights = parse_dtype(dtype)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot use --device {device}: {reason}") from None
    wanted = name or DEFAULT_MODEL
    how: dict[str, Any] = {
        "device": device,
        "dtype": weights,
        "quantization": quantization,
        "trust_remote_code": trust_remote_code,
    }
    with _quiet_transformers():
        if listens(wanted):
            return load_speech(wanted, **how)[0]
        return StreamingCausalLM.from_pretrained(wanted, **how)


def load_listener(
    name: str | None,
    device: str,
    dtype: str = "auto",
    quantization: str = "none",
    trust_remote_code: bool = False,
    *,
    gate: bool = True,
) -> "StreamingCausalLM":
    """Loads a model that listens.

    Args:
        name: bundled model, folder or hub id; None = the bundled default.
        device: as torch names it.
        dtype: of the weights of the causal LM, by name; auto leaves it to the device.
        quantization: none or int8, of the causal LM.
        trust_remote_code: run code that the causal LM brings.
        gate: whether silence is held back.

    Returns:
        The model.

    Raises:
        ValueError: as `load_model`, or it does not listen.
    """
    from proactivellm.speech.loading import DEFAULT_SPEECH_MODEL

    wanted = name or DEFAULT_SPEECH_MODEL
    model = load_model(wanted, device, dtype, quantization, trust_remote_code)
    if model.front_end is None:
        raise ValueError(
            f"{name} does not listen to audio: give --model {DEFAULT_SPEECH_MODEL}, or a folder "
            "with a front end for speech"
        )
    if not gate:
        model.front_end.gate = None
    return model


def tell_settings_not_applied(model: "StreamingCausalLM") -> "StreamingCausalLM":
    """Tells which generation settings of a model a command that writes greedily passes over.

    Args:
        model: a loaded model.

    Returns:
        The model.
    """
    from proactivellm.session.sampling import settings_not_applied

    if names := settings_not_applied(model.model.generation_config, greedy=True):
        warn(
            "warning: tokens are chosen greedily here: generation_config settings not applied: "
            + ", ".join(names)
        )
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and hints while a model is loaded; errors are raised, not logged."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
