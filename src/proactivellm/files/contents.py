"""Tells what a file or a pipe holds by its first bytes, and what to do where text was expected."""

import re

HEAD_BYTES = 12  # that tell all; fewer tell less

GZIP = b"\x1f\x8b"
_COMPRESSED = {  # by name: how it begins, and what decompresses it
    "gzip": (GZIP, "gzip -dc"),
    "bzip2": (rb"BZh\d1AY&SY", "bzip2 -dc"),
    "xz": (rb"\xfd7zXZ\0", "xz -dc"),
    "zstd": (rb"\x28\xb5\x2f\xfd", "zstd -dc"),
    "zip": (rb"PK\x03\x04", "unzip -p"),
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_AUDIO = {
    "WAV": rb"(RIFF|RF64)....WAVE",
    "W64": rb"riff\x2e\x91\xcf\x11",
    "FLAC": rb"fLaC[\0\x80]",
    "OGG": rb"OggS\0",
    "MP3": rb"ID3[\x02-\x04]|\xff\xfb",
    "AU": rb"\.snd\0",
    "CAF": rb"caff\0",
    "AIFF": rb"FORM....AIF[FC]",
    "AMR": rb"#!AMR",
    "MP4": rb"\0...ftyp",
    "Matroska": rb"\x1a\x45\xdf\xa3",
}


def audio_format(head: bytes) -> str | None:
    """The format of audio that begins with these bytes, such as "WAV"; None if it is unknown."""
    for name, pattern in _AUDIO.items():
        if re.match(pattern, head, re.DOTALL):
            return name
    return None


def why_no_text(head: bytes) -> str | None:
    """Why these bytes do not begin a text in UTF-8, and the remedy; None where it may be text."""
    for name, (pattern, command) in _COMPRESSED.items():
        if re.match(pattern, head):
            return f"it is compressed ({name}), not text: decompress it first, with {command}"
    if head.startswith(_UTF_16):
        return "the text is UTF-16, not UTF-8: convert it first: iconv -f UTF-16 -t UTF-8 IN > OUT"
    if audio := audio_format(head):
        return (
            f"it is audio ({audio}), not text: give a file with the extension of its format, or "
            "pipe WAV or raw samples in with --pcm s16le"
        )
    return None
