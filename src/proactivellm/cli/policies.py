"""Policies on the command line: their table in the help, and the one taken where none is named."""

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.policy.base import Policy

# As `policy.spec.available_policies` and `policy.calibration.TARGETS` have it, which load torch:
# help and completion would take seconds.
_LAGS = "min_lag, max_lag, stride, silence"
TABLE = {
    "wait-k": ("k, stride, silence", "Read k units, then write one word for each unit read."),
    "sentence-wait-k": (
        "k, stride, silence",
        "Wait-k that starts anew at each sentence end of the source.",
    ),
    "offline": ("", "Read the whole source, then write."),
    "fixed": (
        "trace",
        "Replay one trace: the units read before each word; words beyond it wait for the whole "
        "source.",
    ),
    "entropy": (
        f"threshold, top, {_LAGS}",
        "Write when the entropy of the next-token distribution is below a threshold.",
    ),
    "confidence": (
        f"threshold, {_LAGS}",
        "Write when the most probable next token is more probable than a threshold.",
    ),
    "control": (
        f"threshold, {_LAGS}",
        "Read while the control token, which training teaches, is more probable than a threshold.",
    ),
    "learned": (
        f"threshold, lag_weight, {_LAGS}",
        "Write when a head on the model's own state finds the next token acceptable.",
    ),
    "ctc": (
        f"threshold, {_LAGS}",
        "Write when a CTC head of the encoder has heard so many words more than were written.",
    ),
    "attention": (
        f"threshold, heads, frontier, {_LAGS}",
        "Write when little of the source attention is on the newest units.",
    ),
    "alignatt": (
        f"frontier, heads, norm, pool, min_mass, {_LAGS}",
        "Write when the most attended source unit is none of the newest.",
    ),
    "concentration": (
        f"threshold, heads, {_LAGS}",
        "Write when one source unit has a large share of the source attention.",
    ),
    "combined": (
        f"threshold, heads, frontier, {_LAGS}",
        "Write when the next token is probable and the source attention is not on the newest "
        "units.",
    ),
    "local-agreement": (
        f"n, draft, every, {_LAGS}",
        "Commit the longest common prefix of the last n hypotheses.",
    ),
    "hold-n": (
        f"n, draft, every, {_LAGS}",
        "Commit the newest hypothesis without its last n tokens.",
    ),
    "oracle": (
        f"acceptable, {_LAGS}",
        "Write what the model would write after the whole source: a ceiling, for evaluation only.",
    ),
}
WITH_THRESHOLD = (
    *("entropy", "confidence", "control", "learned", "ctc"),
    *("attention", "concentration", "combined"),
)
TARGETS = ("laal", "rco", "al", "dal", "quantile")


class PolicyCommand(TyperCommand):
    """A command whose help ends with the table of policies."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help, then the table."""
        super().format_help(ctx, formatter)
        from rich import box
        from rich.console import Console
        from rich.table import Table

        rows = Table(box=box.SIMPLE, title="Policies, as NAME:VALUE or NAME:KEY=VALUE,KEY=VALUE")
        for heading in ("name", "keys", "what it does"):
            rows.add_column(heading, no_wrap=heading == "name")
        for name, row in TABLE.items():
            rows.add_row(name, *row)
        rows.caption = (
            "A word is written min_lag units behind the source at the earliest and max_lag at the "
            "latest, where stride units count as a word. With a calibrated model, "
            f"{', '.join(WITH_THRESHOLD)} take a target instead of a threshold "
            f"({', '.join(TARGETS)}): entropy:laal=3 asks for an average lag of 3 units."
        )
        Console().print(rows)


def choose_policy(model: "StreamingCausalLM", text: str | None, listens: bool = False) -> "Policy":
    """The policy asked for, or the model's default.

    Args:
        model: its calibration table resolves targets, and may name the default.
        text: a spec, or None.
        listens: whether the sources are recordings.

    Raises:
        ValueError: the spec is wrong, or a target cannot be resolved, be it that of the default: no
            other policy takes its place.
    """
    from proactivellm.evaluation.default_policy import default_spec
    from proactivellm.evaluation.evaluate import find_calibration
    from proactivellm.policy.spec import parse_policy

    calibration = find_calibration(model)
    if text is not None:
        return parse_policy(text, calibration)
    try:
        return parse_policy(default_spec(model, listens), calibration)
    except ValueError as error:
        raise ValueError(f"no default policy: {error}; or name one with --policy") from None
