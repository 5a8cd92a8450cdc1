"""The command `serve`: live streams over the network. All else is in the room `serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from proactivellm.cli.app import app
from proactivellm.cli.completion import complete_model
from proactivellm.cli.messages import warn
from proactivellm.cli.models import loading
from proactivellm.cli.watching import AttendChunks, Chunk, DropTokens, RecallChunks

if TYPE_CHECKING:
    from proactivellm.serve.settings import Settings

_NETWORK, _ACCESS, _LIMITS, _RAY = "Network", "Access", "Limits", "Many machines"
Number: TypeAlias = int | None
Seconds: TypeAlias = float | None
Text: TypeAlias = str | None
File: TypeAlias = Path | None


def _option(panel: str, metavar: str, help_: str, default: str, *names: str, **more: Any) -> Any:
    """A flag whose default is that of the settings, unless the environment or a file has one."""
    return typer.Option(
        *names,
        metavar=metavar,
        help=help_,
        show_default=default,
        rich_help_panel=panel or None,
        **more,
    )


@app.command()
def serve(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        _option(
            "",
            "NAME|PATH",
            "A model to serve, as `stream` takes it. Repeat the flag for more; the first one is "
            "the default.",
            "the bundled models of text",
            "--model",
            autocompletion=complete_model,
        ),
    ] = None,
    config: Annotated[
        File, _option("", "FILE", "Settings as TOML: a key is a flag with _ for -.", "none")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Load all, say what would be served, and exit.")
    ] = False,
    device: Annotated[Text, _option("", "NAME", "Where the models run.", "cpu")] = None,
    dtype: Annotated[Text, _option("", "NAME", "Type of the weights.", "auto")] = None,
    quantization: Annotated[
        Text, _option("", "none|int8|nf4", "Bits of linear layers: 8 or 4.", "none")
    ] = None,
    window: Annotated[
        Number, _option("", "TOKENS", "Of source and of target that stay in view.", "all")
    ] = None,
    chunk: Chunk = None,
    drop_tokens: DropTokens = None,
    attend_chunks: AttendChunks = None,
    recall_chunks: RecallChunks = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
    host: Annotated[
        Text, _option(_NETWORK, "ADDRESS", "0.0.0.0 is reached from outside.", "127.0.0.1")
    ] = None,
    port: Annotated[Number, _option(_NETWORK, "N", "0 takes any that is free.", "8000")] = None,
    tls_certificate: Annotated[
        File, _option(_NETWORK, "FILE", "Serve https and wss with it (PEM).", "none")
    ] = None,
    tls_key: Annotated[File, _option(_NETWORK, "FILE", "Its key (PEM).", "none")] = None,
    api_keys: Annotated[
        list[str] | None,
        _option(
            _ACCESS,
            "KEY",
            "Clients have to send one of these keys. Others can read what a command line says: "
            "better set PROACTIVELLM_SERVE_API_KEYS.",
            "anyone may connect",
            "--api-key",
        ),
    ] = None,
    origins: Annotated[
        list[str] | None,
        _option(
            _ACCESS,
            "ORIGIN",
            "Pages of this origin may connect, such as https://example.org; * is any.",
            "its own pages alone",
            "--origin",
        ),
    ] = None,
    sessions: Annotated[Number, _option(_LIMITS, "N", "Sessions at once.", "256")] = None,
    streams: Annotated[
        Number, _option(_LIMITS, "N", "Turns at work at once, of each model.", "32")
    ] = None,
    entries: Annotated[
        Number, _option(_LIMITS, "TOKENS", "Of a model's cache.", "as it takes")
    ] = None,
    queue_s: Annotated[Seconds, _option(_LIMITS, "S", "A turn waits for a lane.", "10")] = None,
    idle_s: Annotated[Seconds, _option(_LIMITS, "S", "Without a sign of a client.", "300")] = None,
    session_s: Annotated[Seconds, _option(_LIMITS, "S", "A session lasts.", "3600")] = None,
    resume_s: Annotated[
        Seconds, _option(_LIMITS, "S", "A session waits for a client that is gone.", "30")
    ] = None,
    ping_s: Annotated[
        Seconds, _option(_LIMITS, "S", "Between pings of a client, and to answer one.", "20")
    ] = None,
    send_s: Annotated[
        Seconds, _option(_LIMITS, "S", "A client may take for one message.", "30")
    ] = None,
    drain_s: Annotated[Seconds, _option(_LIMITS, "S", "To end turns at SIGTERM.", "20")] = None,
    message_bytes: Annotated[
        Number, _option(_LIMITS, "N", "Of one message of a client.", "1048576")
    ] = None,
    turn_chars: Annotated[Number, _option(_LIMITS, "N", "Of one source.", "100000")] = None,
    waiting_chars: Annotated[
        Number, _option(_LIMITS, "N", "Of a source that wait to be read.", "20000")
    ] = None,
    thought_tokens: Annotated[
        Number, _option(_LIMITS, "N", "Of a thought, of a model that thinks.", "256")
    ] = None,
    turn_s: Annotated[Seconds, _option(_LIMITS, "S", "Of one recording.", "7200")] = None,
    waiting_s: Annotated[
        Seconds, _option(_LIMITS, "S", "Of a recording that wait to be heard.", "30")
    ] = None,
    picture_pixels: Annotated[
        Number, _option(_LIMITS, "N", "Of a picture of a video.", "2073600")
    ] = None,
    upload_bytes: Annotated[
        Number, _option(_LIMITS, "N", "Of a request with a recording.", "26214400")
    ] = None,
    events_per_s: Annotated[Number, _option(_LIMITS, "N", "Of one client.", "200")] = None,
    unsent_events: Annotated[
        Number, _option(_LIMITS, "N", "That wait for a slow client.", "256")
    ] = None,
    replay_events: Annotated[
        Number, _option(_LIMITS, "N", "That can be sent again.", "1024")
    ] = None,
    log_format: Annotated[Text, _option("", "json|text", "Of the log, on stderr.", "json")] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Serve by replicas on a Ray cluster: that of RAY_ADDRESS, else one of this "
            "machine. All limits are those of each replica. Needs the extra `ray`.",
            rich_help_panel=_RAY,
        ),
    ] = False,
    replicas: Annotated[Number, _option(_RAY, "N", "At least.", "1")] = None,
    max_replicas: Annotated[Number, _option(_RAY, "N", "At most.", "as many as --replicas")] = None,
    replica_sessions: Annotated[
        Number, _option(_RAY, "N", "Connected with each, on average: more of them, more.", "32")
    ] = None,
    replica_cpus: Annotated[Seconds, _option(_RAY, "N", "That each reserves.", "1")] = None,
    replica_gpus: Annotated[Seconds, _option(_RAY, "N", "That each reserves.", "0")] = None,
) -> None:
    """Serve models: OpenAI's realtime protocol, text in while text comes out.

    Every flag is also an environment variable (PROACTIVELLM_SERVE_ and its name, lists with commas)
    and a key of the file of --config. Ctrl-C or SIGTERM end it, when what is being written has
    ended.

    Example:
        proactivellm serve --port 8000
    """
    settings = _settings(context.params)
    if settings.ray and not check:
        _serve_replicas(settings)
        return
    with loading(", ".join(settings.models), settings.quantization):
        from proactivellm.serve.app import create_app

        application = create_app(settings)
    if check:
        for served in application.state.models:
            typer.echo(f"{served.name}  {served.policy.spec}")
        return
    from proactivellm.serve.logs import set_up
    from proactivellm.serve.running import serve as run

    set_up(settings.log_format)
    run(application, settings, lambda url: warn(f"listening on {url}"))


def _serve_replicas(settings: "Settings") -> None:
    from proactivellm.evaluation.cluster import import_ray

    import_ray("serve --ray")
    with loading("Ray"):
        from proactivellm.serve.replicas import serve_replicas
    serve_replicas(settings, lambda url: warn(f"listening on {url}"))


def _settings(flags: dict[str, Any]) -> "Settings":
    """ValueError if a flag, a variable or the file is wrong, or the extra is not installed."""
    try:
        import uvicorn  # noqa: F401

        from proactivellm.serve.settings import Settings, read_settings
    except ImportError as error:
        remedy = "pip install 'proactivellm[serve]'"
        raise ValueError(f"serve needs {error.name}, which is not installed: {remedy}") from None
    absent: tuple[object, ...] = (None, [], ())
    given = {name: flags[name] for name in Settings.model_fields if flags[name] not in absent}
    for name in ("trust_remote_code", "ray"):  # which a variable or the file may say
        if not flags[name]:
            del given[name]
    return read_settings(given, flags["config"])
