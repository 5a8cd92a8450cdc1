"""Which file names are of audio; nothing heavy is imported, as commands ask first of all."""

from pathlib import Path

_READABLE = (
    *(".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".sph", ".voc"),
)
# Known as audio, so that the error is about audio; libsndfile does not decode them.
_UNREADABLE = (".aac", ".ac3", ".amr", ".m4a", ".mka", ".wma")


def is_audio(path: str | Path) -> bool:
    """Whether a path, or "archive.zip:member", has an extension of audio; nothing is opened."""
    return Path(path).suffix.lower() in _READABLE + _UNREADABLE
