"""The stream command: lines come in, events go to a display, instances to a log."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from proactivellm.cli.display import Display, format_number
from proactivellm.cli.live import LiveLine
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.metrics.report import score
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance, write_instance
from proactivellm.pipeline import StreamEvent, stream_units
from proactivellm.policy.base import Policy
from proactivellm.policy.spec import parse_policy
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.units.text import TextSegmenter

DEFAULT_POLICIES = ("entropy:laal=3", "wait-k:3")  # the first that the model's table can resolve


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How sources are streamed.

    Attributes:
        model: the streaming model.
        policy: READ or WRITE.
        rate_wpm: words per minute at which words are read at most; None = as they arrive.
        sampling: how tokens are chosen; the model's generation settings if None.
        window: what a stream keeps in view; everything if None.

    Raises:
        ValueError: if the model's prompt leaves no room in the window.
    """

    model: StreamingCausalLM
    policy: Policy
    rate_wpm: float | None = None
    sampling: Sampling | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            self.window.check_prompt(self.model.prompt)


def choose_policy(model: StreamingCausalLM, text: str | None) -> Policy:
    """The policy asked for, or a sensible one.

    Args:
        model: its calibration table resolves targets.
        text: a spec, or None.

    Returns:
        The policy.

    Raises:
        ValueError: the spec is wrong, or its target cannot be resolved.
    """
    calibration = find_calibration(model)
    if text is not None:
        return parse_policy(text, calibration)
    for candidate in DEFAULT_POLICIES[:-1]:
        try:
            return parse_policy(candidate, calibration)
        except ValueError:  # not calibrated, or not over that range
            continue
    return parse_policy(DEFAULT_POLICIES[-1])


def stream_lines(
    settings: Settings, lines: Iterable[LiveLine], display: Display, log: Path | None = None
) -> bool:
    """Streams every line, and sums up.

    Args:
        settings: how they are streamed.
        lines: sources as they arrive.
        display: shows what happens.
        log: instance log to write.

    Returns:
        Whether it came to the end, and was not interrupted.

    Raises:
        ValueError: a line cannot be streamed; names it.
    """
    segmenter = TextSegmenter(settings.model.tokenizer)
    done: list[Instance] = []
    completed = False
    with open(log, "w", encoding="utf-8") if log else nullcontext() as file:
        try:
            for line in lines:
                display.begin()
                events = stream_units(
                    settings.model,
                    settings.policy,
                    line.units(segmenter, settings.rate_wpm),
                    settings.sampling,
                    settings.window,
                )
                instance = _shown(events, display, line.where)
                done.append(replace(instance, index=len(done), source=line.text))
                display.end(done[-1])
                if file:
                    write_instance(file, done[-1])
            completed = True
        except KeyboardInterrupt:
            pass
        finally:
            display.close()
    display.summary(summarize(done))
    return completed


def _shown(
    events: Generator[StreamEvent, None, Instance], display: Display, where: str
) -> Instance:
    """Shows the events of a line as they happen."""
    while True:
        try:
            display.event(next(events))
        except StopIteration as end:
            return end.value
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def summarize(done: Sequence[Instance], steps: int | None = None) -> str:
    """One line over all instances: means of the lags, totals of the costs and of what was dropped.

    Args:
        done: the instances.
        steps: forwards that their streams shared, if they did.

    Returns:
        The line.
    """
    if not done:
        return "0 sentences"
    scores = score(done)
    lags = [f"{name} {format_number(scores[name])}" for name in ("AL", "LAAL", "RCO")]
    forwards, tokens = (sum(getattr(i, name) or 0 for i in done) for name in ("forwards", "tokens"))
    plural = "s" * (len(done) != 1)
    shared = f" in {steps} steps" if steps is not None else ""
    parts = [f"{len(done)} sentence{plural}", *lags, f"{forwards} forwards{shared}"]
    parts.append(f"{tokens} tokens")
    units, written = (
        sum(getattr(i, f"dropped_{name}") for i in done) for name in ("units", "tokens")
    )
    if units or written:
        parts.append(f"dropped {units} units, {written} tokens")
    return ", ".join(parts)
