"""The model that a command names. Heavy imports are inside."""

from typing import TYPE_CHECKING, Any

from proactivellm.cli.shared import warn

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


def load_model(
    name: str | None, kind: str | None = None, *, gate: bool = True, **how: Any
) -> "StreamingCausalLM":
    """Loads the model that a command names, or else the default for its sources.

    Args:
        name: as `load` takes it; None = the default.
        kind: of the sources, one of `modality.kinds.KINDS`; None = text.
        gate: whether silence in recordings is held back.
        how: keyword arguments of `load`.

    Raises:
        ValueError: as `load`, or the model does not take such sources.
    """
    from proactivellm.backbone.hub import DEFAULT_MODEL
    from proactivellm.modality.kinds import KINDS
    from proactivellm.modality.loading import front_end_of, load

    default = KINDS[kind].default_model if kind else DEFAULT_MODEL
    model = load(name or default or DEFAULT_MODEL, **how)
    if kind:
        front_end_of(model, kind)
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
