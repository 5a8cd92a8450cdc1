"""Clips that are broken, or out of the ordinary, through the command: a clear error, or a defined
end at which nothing is lost."""

import json

import av
import numpy as np
import pytest
import torch
from tests.video_models import save_tiny_watcher

from proactivellm.cli import main
from proactivellm.modality.video.decoding import Video
from proactivellm.modality.video.pixels import PixelSettings, patches

from .clips import write_clip, write_sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher"))


def cut(path, at):
    """A clip of three seconds, of which this share is there."""
    clip = write_clip(path, [number / 8 for number in range(25)])
    clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * at)])
    return clip


def of_sound(path):
    path.write_bytes(write_sound(path.with_suffix(".wav")).read_bytes())
    return path


def of_subtitles(path):
    """A file with neither pictures nor sound."""
    text = path.with_suffix(".srt")
    text.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    with av.open(str(path), "w") as container, av.open(str(text)) as source:
        stream = container.add_stream_from_template(source.streams[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return path


def of_no_frames(path):
    """A file that says that there is a video in it, and has none of its frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.start_encoding()
    return path


def run(command, code):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command)])
    assert int(ended.value.code or 0) == code


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.mp4", lambda path: cut(path, 0.5), "cannot be read as video"),  # its index is gone
        ("a.mkv", lambda path: cut(path, 0.01), "cannot be read as video"),
        ("a.mp4", of_sound, "there are no pictures in it (it has sound alone): give a video"),
        ("a.mkv", of_subtitles, "there are no pictures in it (it has none): give a video"),
        ("a.avi", of_no_frames, "no frame can be read: record or copy it again"),
    ],
)
def test_what_holds_no_pictures_is_told_in_one_line(folder, tmp_path, capfd, name, make, message):
    clip = make(tmp_path / name)
    run(["stream", "--model", folder, "--input", clip], 2)
    told = capfd.readouterr()
    (line,) = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert str(clip) in line and message in line and "Traceback" not in told.err
    assert not told.out.strip()


@pytest.mark.parametrize(
    ("name", "make", "length_s", "warns"),
    [
        ("a.mkv", lambda path: cut(path, 0.5), 1.5, "the file is cut"),
        ("a.mp4", lambda path: write_clip(path, [0.0]), 0.5, ""),  # one frame
        ("a.mkv", lambda path: write_clip(path, [0, 0.5, 1, 7]), 7.5, ""),  # froze for 6 s
    ],
)
def test_what_can_be_read_is_read_to_its_end(folder, tmp_path, capfd, name, make, length_s, warns):
    clip, log = make(tmp_path / name), tmp_path / "log"
    run(["stream", "--model", folder, "--input", clip, "--policy", "offline", "--log", log], 0)
    told = capfd.readouterr()
    (row,) = [json.loads(line) for line in log.open()]
    assert row["source_length"] == 1000 * length_s
    assert told.out.strip() and warns in told.err
    assert ("warning: " in told.err) == bool(warns)


def test_one_that_cannot_be_read_does_not_take_others_along(folder, tmp_path, capfd):
    good, bad = write_clip(tmp_path / "a.mp4", [0, 0.5, 1]), of_no_frames(tmp_path / "b.avi")
    out = tmp_path / "bench"
    run(["bench", "video", "--model", folder, "--clip", good, "--clip", bad, "--out", out], 2)
    rows = json.loads((out / "bench.json").read_text())["suites"]["video"]["clips"]
    assert rows[0]["frames"] == 3 and "no frame can be read" in capfd.readouterr().err


def test_a_frame_of_8k_becomes_as_many_patches_as_others(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", [0.0], size=(4320, 7680), corner=True)
    with Video(clip) as video:
        (frame,) = video.frames(2)
    assert frame.image.shape == (4320, 7680, 3)
    settings = PixelSettings(max_pixels=90_000, mean=(0.0,) * 3, std=(1.0,) * 3)
    found, grid = patches(torch.from_numpy(frame.image)[None], settings)
    assert (grid.height * grid.width) * 14**2 <= 90_000 and grid.width > grid.height
    assert np.isclose(found.mean(), 0.25, atol=0.01)  # a quarter is white, and all else black
