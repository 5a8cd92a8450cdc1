"""What clients send in sessions of speech; unknown fields of OpenAI's objects are passed over."""

from typing import Any

from proactivellm.serve.realtime.client_events import Degree, Extension, Object


class AudioAppend(Object):
    """Of both kinds of buffers."""

    audio: str


class TranscriptionWish(Object):
    """How audio is to be written down."""

    model: str | None = None
    delay: Degree | None = None


class AudioInput(Object):
    """How audio comes, and what becomes of it."""

    format: dict[str, Any] | None = None
    transcription: TranscriptionWish | None = None
    turn_detection: dict[str, Any] | None = None
    noise_reduction: dict[str, Any] | None = None


class AudioOutput(Object):
    """What a translation is to be in."""

    language: str | None = None


class Audio(Object):
    """Both sides."""

    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class SpeechFields(Object):
    """Of `session.update`, where a session transcribes or translates."""

    type: str | None = None
    model: str | None = None
    audio: Audio = Audio()
    include: list[str] | None = None
    proactivellm: Extension | None = None


class SpeechUpdate(Object):
    """The event `session.update` of such a session."""

    session: SpeechFields
