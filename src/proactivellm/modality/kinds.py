"""Which modalities there are besides text: a new one is a line in this table.

Nothing heavy is imported here: commands look names up before they load a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from proactivellm.modality.speech.extensions import is_audio
from proactivellm.modality.video.extensions import is_video

if TYPE_CHECKING:
    from proactivellm.modality.base import FrontEnd, FrontEndTable


class Kind(NamedTuple):
    """A modality."""

    # Gives its class; what that needs is imported when it is called.
    front_end: Callable[[], type[FrontEnd]]
    takes: Callable[[str], bool]  # whether a name is that of a file of this kind; nothing is opened
    default_model: str | None = None  # bundled; None = there is none
    # Gives the class of its table in recipes; None = it cannot be trained by one.
    table: Callable[[], type[FrontEndTable]] | None = None
    # Opens a file, and raises OSError or ValueError if it cannot be read.
    check: Callable[[str], None] = lambda name: open(name, "rb").close()


def _speech() -> type[FrontEnd]:
    from proactivellm.modality.speech.front_end import SpeechFrontEnd

    return SpeechFrontEnd


def _check_audio(name: str) -> None:
    from proactivellm.modality.speech.files import Recording

    Recording(name).close()


def _speech_table() -> type[FrontEndTable]:
    from proactivellm.modality.speech.recipe import Speech

    return Speech


def _video() -> type[FrontEnd]:
    from proactivellm.modality.video.front_end import VideoFrontEnd

    return VideoFrontEnd


def _video_table() -> type[FrontEndTable]:
    from proactivellm.modality.video.recipe import Video

    return Video


def _check_video(name: str) -> None:
    from proactivellm.modality.video.decoding import Video
    from proactivellm.modality.video.extensions import is_address

    if not is_address(name):  # a camera, or a pipe, is opened once
        Video(name).close()


def _qwen_vl() -> Callable[..., Any]:
    from proactivellm.modality.video.qwen_vl import load_qwen_vl

    return load_qwen_vl


def _qwen2_audio() -> Callable[..., Any]:
    from proactivellm.modality.speech.qwen2_audio import load_qwen2_audio

    return load_qwen2_audio


KINDS = {
    "speech": Kind(_speech, is_audio, "speech-en", _speech_table, _check_audio),
    "video": Kind(_video, is_video, None, _video_table, _check_video),
}
# Checkpoints that hold LM and front end in one, by model type, and what gives their loader.
WHOLE_MODELS = {"qwen2_audio": _qwen2_audio, "qwen2_5_vl": _qwen_vl, "qwen3_vl": _qwen_vl}


def kind_in(model_folder: Path) -> str | None:
    """The kind of front end that a model folder holds; None = it reads text alone."""
    kinds = (kind for kind in KINDS if (model_folder / kind / f"{kind}.json").is_file())
    return next(kinds, None)


def kind_of_media(files: Sequence[str]) -> str:
    """The kind of a source of one or more files; names that tell nothing are taken for speech."""
    return next(filter(None, map(kind_of_file, files)), "speech")


def kind_of_file(name: str) -> str | None:
    """The kind of payload that a file holds, by its name; None = text."""
    return next((kind for kind, known in KINDS.items() if known.takes(name)), None)
