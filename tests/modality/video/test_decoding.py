"""Frames and their times, of sources in order and of broken ones."""

import os
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from proactivellm.modality.video.decoding import Video
from proactivellm.modality.video.extensions import is_video
from proactivellm.modality.video.timing import resample

from .clips import number_of, write_clip, write_sound

STEADY = [number / 10 for number in range(20)]


def read(name, fps=None, **how):
    """Number and time of each frame."""
    with Video(name, **how) as video:
        return [(number_of(f.image), round(f.time_s, 3)) for f in video.frames(fps)]


class TestTimes:
    @pytest.mark.parametrize(
        ("times_s", "expected"),
        [
            ([0.0, 0.5, 1.0], "0 1 2"),
            ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "0 2 5"),  # left out
            ([0.0, 2.0], "0 0 0 0 1"),  # a camera that froze: repeated
            ([0.0, 0.1, 0.2, 1.6], "0 2 2 2 3"),
            ([0.3, 0.9], "0 0 1"),  # counted from the first frame on
            ([7.0], "0"),
            ([0.0, 0.0, 0.5], "1 2"),  # two at once: the last one is shown
            ([], ""),
        ],
    )
    def test_resampled(self, times_s, expected):
        chosen = list(resample(((t, i) for i, t in enumerate(times_s)), 2))
        assert " ".join(str(frame) for _, frame in chosen) == expected
        start = times_s[0] if times_s else 0
        assert [t for t, _ in chosen] == [start + k / 2 for k in range(len(chosen))]

    def test_native(self, tmp_path):
        clip = write_clip(tmp_path / "a.mkv", STEADY)
        assert read(clip) == list(enumerate(STEADY))

    def test_frames_of_changing_rate_are_chosen_by_their_times(self, tmp_path):
        clip = write_clip(tmp_path / "a.mkv", [0.0, 0.05, 0.1, 0.9, 1.0, 2.1])
        assert read(clip) == list(enumerate([0.0, 0.05, 0.1, 0.9, 1.0, 2.1]))
        assert read(clip, fps=2) == [(0, 0.0), (2, 0.5), (4, 1.0), (4, 1.5), (4, 2.0), (5, 2.5)]

    def test_seek(self, tmp_path):
        clip = write_clip(tmp_path / "a.mkv", STEADY)
        assert read(clip, start_s=1.25) == list(enumerate(STEADY))[13:]

    def test_a_clip_of_one_frame(self, tmp_path):
        assert read(write_clip(tmp_path / "a.mkv", [0.0]), fps=2) == [(0, 0.0)]


def turned(clip: Path) -> Path:
    """The clip as of a camera that was held upright: its pictures are to be turned clockwise."""
    data = bytearray(clip.read_bytes())
    place = data.find(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 2**30), data.find(b"tkhd"))
    data[place : place + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 2**30)
    clip.write_bytes(data)
    return clip


def test_turned_pictures_are_shown_upright(tmp_path):
    clip = turned(write_clip(tmp_path / "a.mp4", [0.0, 0.1], corner=True))
    with Video(clip) as video:
        image = next(video.frames()).image
    assert image.shape == (48, 32, 3)
    quarters = image.reshape(2, 24, 2, 16, 3).mean((1, 3, 4))
    assert np.array_equal(quarters > 128, [[False, True], [False, False]])


def test_folder_of_pictures(tmp_path):
    for number in (2, 0, 1):
        write_clip(tmp_path / f"{number}.png", [0.0], codec="png", corner=not number)
    assert is_video(str(tmp_path))
    with Video(tmp_path) as video:
        frames = list(video.frames())
    assert [frame.time_s for frame in frames] == [0.0, 0.5, 1.0]
    assert [frame.image.max() for frame in frames] == [255, 0, 0]
    (tmp_path / "1.png").write_bytes(b"no picture")
    with Video(tmp_path) as video, pytest.warns(UserWarning, match=r"1.png was left out"):
        assert [frame.time_s for frame in video.frames()] == [0.0, 1.0]


def test_pipe(tmp_path):
    data = write_clip(tmp_path / "a.ts", STEADY[:5]).read_bytes()
    out, into = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(into, data), os.close(into)))
    writer.start()
    assert [number for number, _ in read(f"pipe:{out}")] == [0, 1, 2, 3, 4]
    writer.join()


def test_a_camera_that_stops_ends_the_stream(tmp_path):
    data = write_clip(tmp_path / "a.ts", STEADY).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send():
            connection = server.accept()[0]
            connection.sendall(data)
            gone.wait(20)
            connection.close()

        gone = threading.Event()
        camera = threading.Thread(target=send)
        camera.start()
        began = time.monotonic()
        with pytest.warns(UserWarning, match=r"nothing came for 0.3 s: the source has stopped"):
            seen = read(f"tcp://127.0.0.1:{server.getsockname()[1]}", patience_s=0.3)
        assert time.monotonic() - began < 10
        gone.set()
        camera.join()
    assert len(seen) >= 18


class TestBroken:
    def test_a_file_that_is_cut(self, tmp_path):
        clip = write_clip(tmp_path / "a.mkv", [number / 8 for number in range(25)])
        clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
        with pytest.warns(UserWarning, match=r"a.mkv: it ends at \d.\d s of \d.\d s"):
            seen = read(clip)
        assert 1 < len(seen) < 15

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "cannot be read as video"),
            (b"no video at all" * 100, "cannot be read as video"),
            (None, "there is no such file"),
        ],
    )
    def test_no_video(self, tmp_path, content, message):
        clip = tmp_path / "a.mp4"
        if content is not None:
            clip.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Video(clip)

    def test_sound_alone(self, tmp_path):
        with pytest.raises(ValueError, match="no pictures in it .it has sound alone"):
            Video(write_sound(tmp_path / "a.wav"))

    def test_a_folder_without_pictures(self, tmp_path):
        with pytest.raises(ValueError, match="a folder without pictures"):
            Video(tmp_path)

    def test_nothing_after_the_start(self, tmp_path):
        clip = write_clip(tmp_path / "a.mkv", STEADY)
        with pytest.raises(ValueError, match="no frame can be read at 9 s or later"):
            read(clip, start_s=9)

    def test_damage_on_the_way_is_left_out(self, tmp_path):
        clip = write_clip(tmp_path / "a.avi", STEADY, codec="png")
        data = bytearray(clip.read_bytes())
        places = [i for i in range(len(data) - 8) if data[i : i + 4] == b"IDAT"]
        data[places[7] - 20 : places[7] + 8] = bytes(28)
        clip.write_bytes(data)
        with pytest.warns(UserWarning, match="1 packets cannot be decoded"):
            seen = {number for number, _ in read(clip)}
        assert {*range(20)} - {7, 8} <= seen < {*range(20)}
