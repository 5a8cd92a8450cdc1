"""Which names are of video; nothing heavy is imported, as commands ask first of all."""

import os.path
from pathlib import Path

EXTENSIONS = (
    *(".3gp", ".avi", ".flv", ".gif", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv", ".y4m"),
)
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# A camera, or a program that writes video to a pipe ("pipe:0" is standard input).
ADDRESSES = (
    *("rtsp://", "rtsps://", "rtmp://", "srt://", "udp://", "tcp://", "http://", "https://"),
    "pipe:",
)


def is_address(name: str) -> bool:
    """Whether a name is that of a live source, and not of a file."""
    return name.lower().startswith(ADDRESSES)


def is_video(name: str) -> bool:
    """Whether a name is of video: a file by its extension, a live source, a folder of pictures."""
    return is_address(name) or Path(name).suffix.lower() in EXTENSIONS or os.path.isdir(name)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
