"""The model that a command names, and what loading one needs. Heavy imports are inside."""

import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proactivellm.backbone.bundled import DEFAULT_MODEL
from proactivellm.backbone.cache import named_models
from proactivellm.cli.messages import status, warn
from proactivellm.modality.kinds import KINDS

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.stream import Job


LOOKUP = "lookup"  # what --speculate calls proposals without a draft model
process_is_ours = False  # whether it runs one command and ends, which `cli.main` knows


def default_model(kind: str | None) -> str:
    """The model for sources of a kind (`modality.kinds.KINDS`; None = text), if none is named."""
    return (KINDS[kind].default_model if kind else None) or DEFAULT_MODEL


@contextmanager
def loading(what: str, quantization: str = "int8") -> Iterator[None]:
    """Says what is loaded until it is; begin it before anything heavy is imported.

    Args:
        what: as the user called the model.
        quantization: `none` if torchao is not needed, unless `what` is stored quantised.
    """
    hides = quantization == "none" and not _may_be_quantised(what)
    was_enabled = gc.isenabled()
    # Imports make some million objects that stay. The garbage collector would go through them
    # again and again, which takes a fifth of the time to the first word.
    gc.disable()
    try:
        with status(f"loading {what}"), _without_torchao() if hides else nullcontext():
            yield
        gc.freeze()  # it does not look at them later on either
    finally:
        if was_enabled:
            gc.enable()


def _may_be_quantised(model: str) -> bool:
    """Whether the weights of a model may be stored quantised: of the hub, one cannot know yet."""
    config = named_models().get(model, Path(model)) / "config.json"
    return not config.is_file() or b"quantization_config" in config.read_bytes()


@contextmanager
def _without_torchao() -> Iterator[None]:
    """Hides torchao from transformers, which imports it wherever it is installed: a second of CPU.

    It stays hidden from transformers, hence only where the process runs one command and ends.
    """
    if not process_is_ours or "transformers" in sys.modules or "torchao" in sys.modules:
        yield
        return
    sys.modules["torchao"] = None  # type: ignore[assignment]  # how Python marks what is not there
    try:
        yield
    finally:
        del sys.modules["torchao"]


@contextmanager
def quiet_imports() -> Iterator[None]:
    """No warnings of torchao about kernels of other devices; transformers imports it if it can."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def load_model(
    name: str | None,
    kind: str | None = None,
    *,
    gate: bool = True,
    block: int | None = None,
    **how: Any,
) -> "StreamingCausalLM":
    """Loads the model that a command names, or else the default for its sources.

    Args:
        name: as `load` takes it; None = the default.
        kind: of the sources, one of `modality.kinds.KINDS`; None = text.
        gate: whether silence in recordings is held back.
        block: that a front end hears at once, in ms; None = that of the model.
        how: keyword arguments of `load`.

    Raises:
        ValueError: as `load`, or the model does not take such sources.
    """
    from proactivellm.modality.loading import front_end_of, load

    if name is None and how.get("adapter"):  # which names the model that it belongs to
        name, how["adapter"] = how["adapter"], None
    model = load(name or default_model(kind), **how)
    if kind:
        front_end_of(model, kind)
    if not gate:
        model.front_end.gate = None
    if block is not None:
        model.front_end.hear_in_blocks(block)
    return model


def load_for(
    jobs: "Sequence[Job]", model: str | None, no_gate: bool, **how: Any
) -> "StreamingCausalLM":
    """Loads the model for these sources, which writes greedily."""
    from proactivellm.evaluation.evaluate import kind_of
    from proactivellm.output.log import TEXT

    kind = None if kind_of(jobs) == TEXT else kind_of(jobs)
    for flag, is_given in (("--no-gate", no_gate), ("--block", how.get("block") is not None)):
        if is_given and kind is None:
            raise ValueError(f"{flag} is for recordings: leave it out, or give audio")
    return tell_settings_not_applied(load_model(model, kind, gate=not no_gate, **how))


def speculate_as(wish: str | None, model: "StreamingCausalLM", listens: bool, **how: Any) -> None:
    """Lets a model check proposed tokens as --speculate asks.

    Args:
        wish: `lookup` or the name of a draft model, with or without `:N`; None = no proposals.
        listens: whether the sources are recordings.
        how: keyword arguments of `load`, for the draft model.

    Raises:
        ValueError: as `load`, or the draft model cannot draft for these sources or this model.
    """
    if wish is None:
        return
    from proactivellm.forward.draft_model import DraftModel
    from proactivellm.forward.speculation import Lookup, Speculation
    from proactivellm.modality.loading import load

    name, _, number = wish.rpartition(":")
    name, tokens = (name, {"tokens": int(number)}) if name and number.isdecimal() else (wish, {})
    try:
        speculation: Speculation
        if name == LOOKUP:
            speculation = Lookup(**tokens)
        elif listens:
            raise ValueError("a draft model reads text alone; for recordings give lookup")
        else:
            speculation = DraftModel(model=load(name, **how), **tokens)
        model.speculate(speculation)
    except ValueError as error:
        raise ValueError(f"--speculate {wish}: {error}") from None


def tell_settings_not_applied(model: "StreamingCausalLM") -> "StreamingCausalLM":
    """Warns of generation settings that a command passes over as it writes greedily."""
    from proactivellm.session.sampling import settings_not_applied

    if names := settings_not_applied(model.model.generation_config, greedy=True):
        warn(
            "warning: tokens are chosen greedily here: generation_config settings not applied: "
            + ", ".join(names)
        )
    return model
