"""What the command `stream` does, from its flags on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from proactivellm.cli.display import choose_display
from proactivellm.cli.listening import AudioOptions, check_inputs, live_recordings
from proactivellm.cli.live import LiveLine, live_lines, live_lines_of_several
from proactivellm.cli.models import load_model
from proactivellm.cli.options import make_window
from proactivellm.cli.places import check_places
from proactivellm.cli.several import stream_inputs
from proactivellm.cli.shared import check_rate
from proactivellm.cli.stopping import Stops
from proactivellm.cli.stream import Settings, choose_policy, stream_lines, stream_recordings
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.spec import PolicySpec
from proactivellm.session.sampling import Sampling


def run_stream(flags: Mapping[str, Any], stops: Stops | None = None) -> bool:
    """Streams what the flags name. Mistakes are told before a model is loaded.

    Args:
        flags: of the command, by name.
        stops: whether the user wants an end; None = nobody listens to signals.

    Returns:
        Whether it came to the end, and was not interrupted.

    Raises:
        ValueError: the flags do not fit each other or the inputs; something cannot be streamed.
        OSError: a file cannot be opened.
    """
    audio = AudioOptions(**{field.name: flags[field.name] for field in fields(AudioOptions)})
    names, log = flags["inputs"] or ["-"], flags["log"]
    check_places([("--log", log)], [("--input", name) for name in names], flags["model"])
    listens = check_inputs(names, audio)
    check_rate(flags["rate"], listens)
    window = make_window(flags["window"], flags["sinks"])
    if flags["policy"] is not None:
        PolicySpec.parse(flags["policy"])
    sampling = None
    if flags["temperature"] is not None:
        sampling = Sampling(temperature=flags["temperature"], seed=flags["seed"])
    stops = stops or Stops()
    opened = [] if listens else _open(names, stops)
    model = _load(flags, listens)
    policy = choose_policy(model, flags["policy"], listens)
    policy.bound_to(model).check(model)  # before anything is read
    settings = Settings(
        model=model,
        policy=policy,
        rate_wpm=flags["rate"],
        sampling=_recommended(model, flags["seed"], sampling),
        window=window,
    )
    header = f"policy  {settings.policy.spec}"
    if listens:
        recordings = live_recordings(model, names, audio, stops)
        display = choose_display(header, speech=True, times=audio.times)
        return stream_recordings(settings, recordings, display, log, stops)
    if len(names) > 1:
        return stream_inputs(settings, dict(zip(names, opened, strict=True)), log, stops)
    return stream_lines(settings, opened[0], choose_display(header), log, stops)


def _recommended(model: StreamingCausalLM, seed: int, given: Sampling | None) -> Sampling:
    """How tokens are chosen; told before anything is read: what else the model recommends."""
    try:
        recommended = Sampling.from_generation_config(model.model.generation_config, seed)
    except ValueError as error:
        if given is None:
            raise ValueError(f"generation_config.json: {error}; or give --temperature") from None
        return given
    return given or recommended


def _open(names: Sequence[str], stops: Stops) -> list[Iterator[LiveLine]]:
    """The lines of each input of text."""
    return live_lines_of_several(names) if len(names) > 1 else [live_lines(names[0], stops)]


def _load(flags: Mapping[str, Any], listens: bool) -> StreamingCausalLM:
    names = ("device", "dtype", "quantization", "trust_remote_code")
    how = {name: flags[name] for name in names}
    kind = "speech" if listens else None
    return load_model(flags["model"], kind, gate=not flags["no_gate"], **how)
