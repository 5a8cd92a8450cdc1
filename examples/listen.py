"""Hear a recording and write while it goes on: python examples/listen.py FILE [MODEL] [POLICY]."""

import sys

from proactivellm import load, parse_policy
from proactivellm.stream import open_media, stream_units


def main(file: str, name: str = "speech-en", policy: str = "wait-k:3,stride=2") -> str:
    """Transcribe one recording, as fast as it can be read.

    Args:
        file: wav, flac, ogg, opus or mp3.
        name: bundled model, folder or hub id of one that listens.
        policy: policy spec; a unit is 320 ms of audio in the bundled model, a word about two.

    Returns:
        The text.
    """
    model = load(name)
    text = ""
    for event in stream_units(model, parse_policy(policy), open_media(model, [file])):
        if event.kind == "WRITE":
            print(f"{event.media_s:6.2f} s {event.text}")
            text += event.text
    return text


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
