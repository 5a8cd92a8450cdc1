"""Controls of what is seen by what they are called: `vica:LAYERS`, `visipruner[:KEY=X,...]`."""

from collections.abc import Callable
from typing import Any

from proactivellm.forward.seen import Control
from proactivellm.forward.vica import ViCA
from proactivellm.forward.visipruner import VisiPruner

MOST_LAYERS = 10_000  # of a range, which would otherwise be written out
_RULES: dict[str, Callable[[str], Any]] = dict(
    shallow=int, filter=float, norm=float, exit=float, among=int
)


def parse_control(text: str) -> Control:
    """Of a text such as `vica:0,1,14-16` or `visipruner:shallow=6`; ValueError if it is none."""
    name, _, rest = text.partition(":")
    try:
        if name == ViCA.name:
            return ViCA(layer for part in filter(None, rest.split(",")) for layer in _layers(part))
        if name == VisiPruner.name:
            given = dict(part.split("=") for part in rest.split(",")) if rest else {}
            return VisiPruner(**{key: _RULES[key](value) for key, value in given.items()})
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"look {text!r}: give vica:LAYERS (such as vica:0,1,14-16), or visipruner with any of "
        f"{', '.join(_RULES)} (such as visipruner:shallow=6,norm=0.2)"
    )


def control_of(front_end: Any) -> Control | None:
    """What a front end asks of the layers; None: nothing, or there is none."""
    look = None if front_end is None else front_end.conditions.get("look")
    return None if look is None else parse_control(look)


def _layers(part: str) -> range:
    first, dash, last = part.partition("-")
    layers = range(int(first), int(last if dash else first) + 1)
    if not 0 < len(layers) <= MOST_LAYERS:  # beyond the last one, `attach` says so of the model
        raise ValueError
    return layers
