"""The command `stream`: targets are written while their sources arrive."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import (
    Adapter,
    Block,
    Device,
    Dtype,
    KvName,
    LayoutName,
    MergeAdapter,
    Model,
    NoGate,
    OnePolicy,
    Quantization,
    Sinks,
    Speculate,
    TrustRemoteCode,
    View,
    check_rate,
    make_window,
    parse_kv,
)
from proactivellm.cli.models import default_model, load_model, loading, speculate_as
from proactivellm.cli.places import MICROPHONE, STANDARD_INPUT, check_places
from proactivellm.cli.policies import PolicyCommand
from proactivellm.cli.stopping import INTERRUPTED, Stops
from proactivellm.cli.stream_flags import (
    AskAt,
    ConversationFile,
    Depth,
    Inputs,
    Json,
    Log,
    Pcm,
    PcmChannels,
    PcmRate,
    Question,
    Rate,
    RealTime,
    RecordingLanes,
    Seed,
    Srt,
    Temperature,
    Thoughts,
    Times,
    Vtt,
)
from proactivellm.cli.watching import (
    AttendChunks,
    Chunk,
    DropTokens,
    Look,
    Past,
    RecallChunks,
    VideoOptions,
)
from proactivellm.modality.kinds import kind_of_file

if TYPE_CHECKING:
    from proactivellm.cli.listening import AudioOptions
    from proactivellm.cli.one_by_one import Settings
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.session.conversation import Conversation
    from proactivellm.session.sampling import Sampling


@app.command(cls=PolicyCommand)
def stream(
    context: typer.Context,
    model: Model = None,
    adapter: Adapter = None,
    merge_adapter: MergeAdapter = False,
    policy: OnePolicy = None,
    inputs: Inputs = None,
    rate: Rate = None,
    log: Log = None,
    conversation: ConversationFile = None,
    window: View = None,
    sinks: Sinks = 0,
    temperature: Temperature = None,
    seed: Seed = 0,
    speculate: Speculate = None,
    kv: KvName = "none",
    layout: LayoutName = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    trust_remote_code: TrustRemoteCode = False,
    pcm: Pcm = None,
    pcm_rate: PcmRate = None,
    pcm_channels: PcmChannels = None,
    real_time: RealTime = False,
    no_gate: NoGate = False,
    block: Block = None,
    question: Question = None,
    ask_at: AskAt = None,
    times: Times = False,
    lanes: RecordingLanes = None,
    srt: Srt = None,
    vtt: Vtt = None,
    json: Json = None,
    thoughts: Thoughts = False,
    depth: Depth = None,
    drop_tokens: DropTokens = None,
    look: Look = None,
    chunk: Chunk = None,
    attend_chunks: AttendChunks = None,
    recall_chunks: RecallChunks = None,
    past: Past = None,
) -> None:
    """Write each target while its source still arrives.

    A terminal shows each READ and WRITE as it happens; for recordings, each word above the time
    in seconds at which it was written. In a pipe, standard output holds the targets alone, one a
    line, each piece as soon as it is written; all else goes to standard error. Several text inputs
    are streamed at once: each target is then written when it is complete, after the name of its
    input and a tab.

    Example:
        echo "Ich habe gestern einen alten Freund getroffen." | proactivellm stream
    """
    names, stops = inputs or [STANDARD_INPUT], context.obj or Stops()
    check_places(
        [
            *(("--log", log), ("--conversation", conversation)),
            *(("--srt", srt), ("--vtt", vtt), ("--json", json)),
        ],
        [("--input", name) for name in names],
        model,
    )
    kinds = ["speech"] if pcm or MICROPHONE in names else [*map(kind_of_file, names)]
    kind = next(filter(None, kinds), None)
    check_rate(rate, listens=kind is not None)
    with loading(model or adapter or default_model(kind), quantization):
        run = _prepare({**context.params, "inputs": names}, kind, stops)
    if not run():
        raise typer.Exit(INTERRUPTED)


def _prepare(flags: Mapping[str, Any], kind: str | None, stops: Stops) -> Callable[[], bool]:
    """Checks the flags, opens the inputs, loads the model; what is left is to stream.

    Args:
        flags: of the command, by name.
        kind: of the sources, one of `modality.kinds.KINDS`; None = text.
        stops: whether the user wants an end.

    Returns:
        What streams, and tells whether it came to the end and was not interrupted.
    """
    from proactivellm.cli.display import choose_display
    from proactivellm.cli.listening import AudioOptions, live_recordings
    from proactivellm.cli.live_lines import live_lines, live_lines_of_several
    from proactivellm.cli.one_by_one import stream_lines, stream_recordings
    from proactivellm.cli.recordings_together import stream_recordings_together
    from proactivellm.cli.side_by_side import stream_inputs
    from proactivellm.policy.spec import PolicySpec

    # Mistakes are told before a model is loaded.
    audio = AudioOptions(**{field.name: flags[field.name] for field in fields(AudioOptions)})
    video = VideoOptions.of(flags)
    names, log = flags["inputs"], flags["log"]
    video.check(kind, bool(flags["question"]), "give --question")
    _check_conversation(flags, kind)
    _check_audio(names, audio, kind)
    if flags["policy"] is not None:
        PolicySpec.parse(flags["policy"])
    window = make_window(flags["window"], flags["sinks"])
    if kind is None:
        lines = live_lines_of_several(names) if len(names) > 1 else [live_lines(names[0], stops)]
    settings = replace(_settings(flags, kind, window), sight=video.sight())
    if kind == "video":
        video.apply(settings.model, flags["ask_at"])
    header = f"policy  {settings.policy.spec}"
    # The display is made when the message about loading has gone: a terminal shows its header.
    if kind is not None:
        recordings = live_recordings(settings.model, names, audio, stops)
        to = (log, stops, audio.files)
        if lanes := audio.lanes:
            return lambda: stream_recordings_together(settings, recordings, lanes, *to)
        return lambda: stream_recordings(
            settings, recordings, choose_display(header, True, audio.times), *to
        )
    if len(names) > 1:
        return lambda: stream_inputs(settings, dict(zip(names, lines, strict=True)), log, stops)
    return lambda: stream_lines(settings, lines[0], choose_display(header), log, stops)


def _settings(flags: Mapping[str, Any], kind: str | None, window: Any) -> "Settings":
    from proactivellm.cli.one_by_one import Settings
    from proactivellm.cli.policies import choose_policy
    from proactivellm.cli.thought_lines import ThoughtLines
    from proactivellm.session.limits import Limits
    from proactivellm.session.thoughts import check_policy, check_thinking

    how = {k: flags[k] for k in ("device", "dtype", "quantization", "trust_remote_code")}
    kv = parse_kv(flags["kv"])
    given = {k: flags[k] for k in ("adapter", "layout", "block")}
    given["merge"] = flags["merge_adapter"]
    model = load_model(flags["model"], kind, gate=not flags["no_gate"], **given, **how)
    model.compress_cache(kv)
    speculate_as(flags["speculate"], model, listens=kind is not None, **how)
    policy = choose_policy(model, flags["policy"], listens=kind is not None)
    policy.bound_to(model).check(model)  # before anything is read
    _check_thinking(flags, kind, model)
    check_thinking(model, window, Limits(depth=flags["depth"]))
    if model.thinking is not None:
        check_policy(policy, ())
    file = flags["conversation"]
    return Settings(
        model=model,
        policy=policy,
        rate_wpm=flags["rate"],
        sampling=_sampling(model, flags["temperature"], flags["seed"]),
        window=window,
        conversation=None if file is None else _conversation(model, file),
        conversation_file=file,
        question=flags["question"] or "",
        depth=flags["depth"],
        thoughts=ThoughtLines() if flags["thoughts"] else None,
    )


def _check_audio(names: Sequence[str], audio: "AudioOptions", kind: str | None) -> None:
    """Raises ValueError where sources, and flags of recordings, do not fit each other."""
    from proactivellm.cli.listening import check_media

    if kind is not None:
        check_media(names, audio, kind)
    elif given := [flag for flag in audio.given if flag != "--question"]:
        raise ValueError(f"{given[0]} is for recordings: leave it out, or give audio")


def _check_thinking(flags: Mapping[str, Any], kind: str | None, model: "StreamingCausalLM") -> None:
    """Raises ValueError where flags are given that are for models that think, or that need one."""
    asked = [name for name in ("thoughts", "depth") if flags[name]]
    asked += ["question"] * (kind is None and flags["question"] is not None)
    if asked and model.thinking is None:
        raise ValueError(f"--{asked[0]} is for models that think, and this one does not")
    if asked and len(flags["inputs"]) > 1:
        raise ValueError(f"--{asked[0]} takes one source at a time: give one --input")


def _check_conversation(flags: Mapping[str, Any], kind: str | None) -> None:
    """Raises ValueError where turns cannot be those of one conversation."""
    if flags["conversation"] is None:
        return
    if kind is not None:
        raise ValueError("--conversation is for text: a recording cannot be a turn")
    if len(flags["inputs"]) > 1:
        raise ValueError("--conversation takes its turns from one input: give one --input")
    if flags["window"] is not None:
        raise ValueError("--conversation keeps all its text in view: leave --window out")


def _conversation(model: "StreamingCausalLM", file: Path) -> "Conversation":
    from proactivellm.session.conversation import Conversation

    return Conversation.load(file, model) if file.exists() else Conversation(model)


def _sampling(model: "StreamingCausalLM", temperature: float | None, seed: int) -> "Sampling":
    """How tokens are chosen: as the user says, or else as the model recommends."""
    from proactivellm.session.sampling import Sampling

    given = None if temperature is None else Sampling(temperature=temperature, seed=seed)
    try:
        # Also where it is not taken: it warns of what it cannot apply.
        recommended = Sampling.from_generation_config(model.model.generation_config, seed)
    except ValueError as error:
        if given is None:
            raise ValueError(f"generation_config.json: {error}; or give --temperature") from None
        return given
    return given or recommended
