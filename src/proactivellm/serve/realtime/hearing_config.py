"""What a session that hears is set to, and how `session.update` changes it."""

from dataclasses import dataclass, replace
from typing import Any

from proactivellm.serve.audio import Format, read_format
from proactivellm.serve.errors import RequestError, not_supported
from proactivellm.serve.models import Models, Served
from proactivellm.serve.realtime.audio_events import AudioInput, SpeechFields
from proactivellm.serve.realtime.client_events import Extension
from proactivellm.serve.realtime.session_config import SessionConfig, at_once


def hears(served: Served) -> bool:
    """Whether a model takes samples."""
    return served.listens and not served.watches


def listening(models: Models, name: str | None, param: str = "model") -> Served:
    """The model of that name, or the first one that listens; RequestError if it reads text."""
    if name is not None:
        served = models.get(name, param)
        if not hears(served):
            raise not_supported(f"{served.name} reads {served.reads}; audio", param)
        return at_once(served, param)
    for served in models:
        if hears(served) and not served.deepest:
            return served
    raise not_supported("none of the models listens; audio", param)


@dataclass(frozen=True, kw_only=True)
class HearingConfig:
    """Values in force.

    Attributes:
        common: what sessions of text have, too.
        format: of the audio that comes.
        detects_turns: whether an item ends where the gate of the model hears a pause.
    """

    common: SessionConfig
    format: Format = Format()
    detects_turns: bool = True
    delay: str | None = None

    @classmethod
    def of(cls, served: Served) -> "HearingConfig":
        """Of a new session with a model."""
        return cls(common=SessionConfig.of(served), detects_turns=_gate(served) is not None)

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self.format.rate

    @property
    def served(self) -> Served:
        """The model that listens."""
        return self.common.served

    def updated(
        self, fields: SpeechFields, models: Models, kind: str = "transcription"
    ) -> "HearingConfig":
        """After an update; RequestError if a value cannot be had: nothing changes then."""
        if fields.type not in (None, kind):
            raise not_supported(f"another type of session than {kind}", "session.type")
        if fields.include:
            raise not_supported(f"include: {fields.include[0][:80]}", "session.include")
        new = self
        asked, param = fields.audio.input, "session.audio.input"
        if asked.transcription is not None:
            new = new._transcribing(asked, models, f"{param}.transcription")
        if asked.noise_reduction is not None:
            raise not_supported("noise reduction", f"{param}.noise_reduction")
        if asked.format is not None:
            new = replace(new, format=read_format(asked.format, f"{param}.format"))
        if "turn_detection" in asked.model_fields_set:
            new = new._detecting(asked.turn_detection, f"{param}.turn_detection")
        if fields.proactivellm is not None:
            common = new.common.extended(fields.proactivellm, "session.proactivellm")
            new = replace(new, common=common)
        return new

    def _transcribing(self, asked: AudioInput, models: Models, param: str) -> "HearingConfig":
        new, wish = self, asked.transcription
        assert wish is not None
        if wish.model is not None and wish.model != self.served.name:
            new = HearingConfig.of(listening(models, wish.model, f"{param}.model"))
            common = replace(new.common, decisions=self.common.decisions)
            new = replace(new, common=common, format=self.format)
        if wish.delay is not None:
            common = new.common.extended(Extension(delay=wish.delay), param)
            new = replace(new, common=common, delay=wish.delay)
        given = wish.model_fields_set | set(wish.model_extra or ())
        ignored = tuple(sorted(f"transcription.{name}" for name in given - {"model", "delay"}))
        return replace(new, common=replace(new.common, ignored=ignored))

    def _detecting(self, asked: dict[str, Any] | None, param: str) -> "HearingConfig":
        if asked is None:
            return replace(self, detects_turns=False)
        kind = asked.get("type", "server_vad")
        if kind != "server_vad":
            raise not_supported(f"turn detection of type {str(kind)[:40]!r}", f"{param}.type")
        if _gate(self.served) is None:
            raise RequestError(
                f"{self.served.name} has no gate that hears pauses: give null",
                code="not_supported",
                param=param,
            )
        return replace(self, detects_turns=True)

    def as_dict(self, session_id: str, resume_s: float, expires_at: int) -> dict[str, Any]:
        """The object `session` of the events that tell of it."""
        common = self.common.as_dict(session_id, resume_s)
        detection, gate = None, _gate(self.served)
        if self.detects_turns and gate is not None:  # as the model has learned it
            detection = {
                "type": "server_vad",
                "threshold": gate.threshold,
                "prefix_padding_ms": round(1000 * gate.preroll_s),
                "silence_duration_ms": round(1000 * gate.pause_s),
            }
        transcription = {"model": self.served.name, "delay": self.delay}
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": session_id,
            "expires_at": expires_at,
            "include": [],
            "audio": {
                "input": {
                    "format": self.format.as_dict(),
                    "noise_reduction": None,
                    "transcription": transcription,
                    "turn_detection": detection,
                }
            },
            "proactivellm": common["proactivellm"],
        }


def _gate(served: Served) -> Any:
    return getattr(served.model.front_end, "gate", None)
