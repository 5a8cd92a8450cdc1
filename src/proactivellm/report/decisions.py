"""What a trace says of each target word: what was held back, what was written, and why.

The picture, the page and the terminal all use this.
"""

from collections import Counter

from proactivellm.decisions.trace import Probe, Trace

_SHORT = {"max_lag": "overdue", "source finished": "source ended"}
_WAITED = {"policy": "held back"}
SENTENCES = {
    "policy": "its rule",
    "min_lag": "min_lag: too little was read",
    "max_lag": "max_lag: the word was overdue",
    "inside a word": "a word that was begun is finished",
    "source finished": "the source is finished",
    "end held": "it would have ended here, and the source goes on",
    "length limit": "the length limit",
    "silence": "nobody speaks",
}


def readable(spec: str) -> str:
    """A policy as people say it: `attention:laal=4` is "attention, LAAL 4"."""
    name, _, settings = spec.partition(":")
    parts = [part.partition("=") for part in settings.split(",") if part]
    words = [f"{_said(key)} {value}" if value else key for key, _, value in parts]
    separator = " " if words and parts[0][2] == "" else ", "  # wait-k 3
    return separator.join([name, ", ".join(words)]) if words else name


def title(trace: Trace) -> str:
    """The policy as it was asked for; without bounds and heads where that is not known."""
    if trace.request:
        return readable(trace.request)
    name, _, settings = trace.policy.partition(":")
    return readable(f"{name}:{settings.partition(',')[0]}" if settings else name)


def held(trace: Trace, row: int) -> list[Probe]:
    """The probes that kept a word waiting: what was held back was for it, or an end before it.

    A token that would have gone on with the word before, once that was begun, counts as well.
    """
    begun = trace.probes.index(trace.deciding(row))
    before = trace.probes.index(trace.deciding(row - 1)) if row else len(trace.probes)
    return [
        probe
        for place, probe in enumerate(trace.probes[:begun])
        if probe.decision == "READ"
        and (probe.word == row or (probe.word == row - 1 and place > before))
    ]


def why(trace: Trace, row: int) -> str:
    """Why a word was begun when it was, in a few words; empty where its rule held at once."""
    counts = Counter(probe.reason for probe in held(trace, row))
    parts = [f"{_WAITED.get(reason, reason)} {count}×" for reason, count in counts.items()]
    return ", ".join([*parts, *filter(None, [_SHORT.get(trace.deciding(row).reason)])])


def numbers(trace: Trace, row: int) -> str:
    """The statistic when the word was last held back, if it was, and when it was written."""
    probes = [probe for probe in held(trace, row) if probe.reason == "policy"][-1:]
    values = [probe.statistic for probe in (*probes, trace.deciding(row))]
    return " → ".join(f"{value:.2f}" for value in values if value is not None)


def explained(trace: Trace, row: int) -> str:
    """Both, and what the number was compared with."""
    value, threshold = trace.deciding(row).statistic, trace.threshold
    parts = [why(trace, row)] if why(trace, row) else []
    if value is not None and threshold is not None:
        sign = "<" if value < threshold else "≥"
        parts.append(f"{numbers(trace, row)} {sign} {threshold:.2f}")
    return ", ".join(parts) or "by its rule"


def _said(key: str) -> str:
    return key.upper() if key in ("laal", "rco", "al", "dal") else key
