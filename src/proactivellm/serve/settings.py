"""The settings of a server: flags, else environment variables, else a TOML file, else defaults."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from proactivellm.backbone.bundled import bundled_models
from proactivellm.files.toml import did_you_mean, read_toml

PREFIX = "PROACTIVELLM_SERVE_"
_FLAGS = {"models": "model", "api_keys": "api_key", "origins": "origin"}  # given one by one

OF_VIDEO = ("chunk", "drop_tokens", "attend_chunks", "recall_chunks")  # fields

Seconds = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]  # 0 = at once
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], NoDecode]  # in an environment variable: separated by commas


def text_models() -> tuple[str, ...]:
    """The bundled models that read text, the most general one first."""
    folders = bundled_models()
    names = [name for name, folder in folders.items() if not (folder / "speech").is_dir()]
    return tuple(sorted(names, reverse=True))


class Settings(BaseSettings):
    """Every field is a flag of `proactivellm serve`, a variable PROACTIVELLM_SERVE_NAME, a key."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000  # 0 = any that is free
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    models: Names = Field(default_factory=text_models, min_length=1)  # the first one is the default
    device: str = "cpu"
    dtype: str = "auto"
    quantization: Literal["none", "int8", "nf4"] = "none"
    # Of models that watch: moments that are read at once; what is dropped of them; chunks that are
    # in sight, and beside them those most like the question (docs/guide/video.md).
    chunk: Count | None = None
    drop_tokens: str | None = None
    attend_chunks: Count | None = None
    recall_chunks: Count | None = None
    window: Count | None = None  # tokens of source and of target that stay in view; None = all
    trust_remote_code: bool = False

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()  # none: anyone who reaches it
    # Of web pages that may connect; "*" = any. Programs, which send no Origin, always may.
    origins: Names = ()

    sessions: Count = 256  # connected, or waiting for their client to come back
    streams: Count = 32  # turns at work at once, of one model
    entries: Count | None = None  # of the cache of one model, in tokens; None = as it takes
    queue_s: SecondsOrNone = 10.0  # a turn waits so long for another one to end
    idle_s: Seconds = 300.0  # without an event of the client
    session_s: Seconds = 3600.0
    resume_s: SecondsOrNone = 30.0  # a session outlives its connection so long
    ping_s: Seconds = 20.0  # between pings of a client, and to answer one
    send_s: Seconds = 30.0  # a client may take so long to take one message
    drain_s: SecondsOrNone = 20.0  # turns may end so long after SIGTERM

    message_bytes: Count = 1 << 20
    turn_chars: Count = 100_000  # of the source of one turn
    waiting_chars: Count = 20_000  # of it that the model has not taken yet
    thought_tokens: Count = 256  # after which a thought is closed, of a model that thinks
    turn_s: Seconds = 7200.0  # of the recording of one turn
    waiting_s: Seconds = 30.0  # of it that the model has not taken yet
    picture_pixels: Count = 1920 * 1080  # of a picture of a video
    upload_bytes: Count = 25 << 20  # of a request with a recording
    events_per_s: Count = 200  # of one client; more are taken later
    unsent_events: Count = 256  # the session waits for its client beyond
    replay_events: Annotated[int, Field(ge=0, le=1_000_000)] = 1024  # that can be sent again

    log_format: Literal["json", "text"] = "json"

    ray: bool = False  # as replicas on a Ray cluster: limits are those of each of them
    replicas: Count = 1  # at least
    max_replicas: Count | None = None  # None = never more
    replica_sessions: Count = 32  # connected with each, on average, before there are more replicas
    replica_cpus: Share = 1.0
    replica_gpus: Share = 0.0

    @field_validator("models", "origins", "api_keys", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if twice := {name for name in models if models.count(name) > 1}:
            raise ValueError(f"{min(twice)} is given twice")
        return models

    @field_validator("api_keys")
    @classmethod
    def _sendable(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            text = key.get_secret_value()
            if not text or not text.isascii() or not text.isprintable() or " " in text:
                raise ValueError("a key is made of visible ASCII characters")
        return keys

    @model_validator(mode="after")
    def _whole_tls(self) -> "Settings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both")
        for name in ("tls_certificate", "tls_key"):
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise ValueError(f"{name}: there is no file {file}")
        return self

    @model_validator(mode="after")
    def _whole_sight(self) -> "Settings":
        if self.recall_chunks is not None and self.attend_chunks is None:
            raise ValueError("recall_chunks is of bounded sight: give attend_chunks as well")
        return self

    @model_validator(mode="after")
    def _whole_cluster(self) -> "Settings":
        given = [name for name in self.model_fields_set if "replica" in name]
        if given and not self.ray:
            raise ValueError(f"{min(given)} is of a Ray cluster: give --ray as well")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is less than the {self.replicas} replicas there are")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """No files but the one that is named."""
        return init_settings, env_settings


def read_settings(flags: Mapping[str, Any], file: Path | None = None) -> Settings:
    """The settings of a server.

    Args:
        flags: those that are given, by field.
        file: TOML, with the fields as keys.

    Raises:
        ValueError: one line that names the first mistake and where it is.
    """
    in_file = {} if file is None else read_toml(file)
    in_environment = _environment()
    for where, names in ((str(file), in_file), ("environment", in_environment)):
        for name in names:
            if name not in Settings.model_fields:
                near = did_you_mean(name, Settings.model_fields)
                raise ValueError(f"{where}: unknown setting {name!r}; {near}".rstrip("; "))
    given = {**in_file, **flags}
    for name in in_environment:
        if name not in flags:
            given.pop(name, None)  # the variable stands above the file
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        said = first["msg"].removeprefix("Value error, ")
        if name in flags:
            where = "--" + _FLAGS.get(name, name).replace("_", "-")
        elif name in in_environment:
            where = PREFIX + name.upper()
        else:
            where = f"{file}: {name}"
        raise ValueError(f"{where}: {said}" if name else said) from None


def _environment() -> dict[str, str]:
    upper = {name.upper(): value for name, value in os.environ.items()}
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in upper.items()
        if name.startswith(PREFIX) and name != f"{PREFIX}CONFIG"
    }
