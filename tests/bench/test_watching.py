"""Clips through all stages: what is counted is what was read, and what grows is what should."""

import json

import pytest
import torch
from benchmarks.video_clips import kept_shares, write_still
from tests.modality.video.clips import write_clip
from tests.video_models import save_tiny_watcher

from proactivellm import parse_policy
from proactivellm.bench.shapes import find_shape, random_model
from proactivellm.bench.watching import QUESTION_TOKENS, measure_clip, time_to_first_token
from proactivellm.bench.workload import Endless
from proactivellm.cli import main
from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.session.limits import Limits, Sight
from proactivellm.session.session import Session

GRID = Grid(2, 3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher"))


@pytest.fixture(scope="module")
def model():
    return Endless(random_model(find_shape("shape:4x128-vl")))


def test_a_clip(folder, tmp_path, capfd):
    """A clip through all stages: what is counted is what was read."""
    clip = write_clip(tmp_path / "a.mp4", [n / 2 for n in range(10)], size=(60, 88))
    command = ["bench", "video", "--model", str(folder), "--out", str(tmp_path / "out")]
    drop = ["--clip", str(clip), "--drop-tokens", "chunk-intra:-1"]
    runs = (([], 2), (["--clip", str(tmp_path / "b.mp4")], 2), ([*drop, "--recall-chunks", "1"], 0))
    for more, code in runs:
        with pytest.raises(SystemExit) as ended:
            main([*command, *more, "--attend-chunks", "1"])
        assert int(ended.value.code or 0) == code
    report = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert report["suites"]["video"]["sight"] == {"units": 1, "recall": 1, "beyond": "host"}
    (row,) = report["suites"]["video"]["clips"]
    assert row["frames"] == 10 and row["tokens"] == 2 * 6 and row["kept_share"] == 12 / 30
    assert list(row["stages"]) == ["decode", "prepare", "encode", "drop", "prefill"]
    assert all(stage["items"] == 2 for stage in row["stages"].values())
    assert all(0 < stage["cpu_s"] for stage in row["stages"].values())
    assert row["bottleneck"] in row["stages"] and row["frames_per_s"] > 0
    told = capfd.readouterr()
    assert "there is no such file" in told.err and "a.mp4" in told.out and "TTFT ms" in told.out


def test_a_clip_that_is_shown_again_and_again(model, tmp_path):
    """Shown for 60 s, in chunks of 3 s: rows every 5 s, of what is bounded and of what is not."""
    clip = str(write_clip(tmp_path / "a.mp4", [n / 2 for n in range(12)], size=(60, 88)))
    histories = []
    model.front_end.watch(chunk=3)
    for sight in (Sight(units=2, beyond="dropped"), None):
        row, told = {}, []

        def tell(*said, told=told):
            told.append(said)

        measure_clip(model, clip, row, sight, loop_s=60, progress=tell)
        assert row["frames"] == 120 and row["stages"]["prefill"]["items"] == 20
        assert told[-1] == ("video: a.mp4, seconds", 60, 60) and row["ttft_ms"] > 0
        histories.append(row["history"])
    for history in histories:
        seconds = [part["video_s"] for part in history]
        assert seconds == [6, 12, 15, 21, 27, 30, 36, 42, 45, 51, 57, 60]
        assert all(part["prefill_ms"] > 0 and part["rss_bytes"] > 0 for part in history)
    (bounded, whole), size = histories, model.front_end.settings.chunk * 6
    held = {part["entries"] for part in bounded[1:]}
    assert held == {bounded[-1]["entries"]} and bounded[-1]["entries"] <= 4 * size
    assert whole[-1]["entries"] >= 20 * size


@pytest.mark.parametrize("sight", [None, Sight(units=1, recall=2)])
@torch.inference_mode()
def test_a_question_takes_one_step_to_its_first_token(model, sight):
    """A question about all that was read, and the end of what is asked about: one step."""
    session = Session(model, parse_policy("offline"), limits=Limits(sight=sight))
    read = []
    for number in range(6):
        features = torch.full((6, 128), float(number))
        session.push(Unit(features=features, grid=GRID, holds=True))
    step = model.step

    def noting(cache, inputs, **how):
        read.append(inputs)
        return step(cache, inputs, **how)

    model.step = noting
    try:
        assert time_to_first_token(model, session) > 0
    finally:
        del model.step
    ((lane,),) = read
    assert lane.probe is not None and session.state.num_written == 1
    assert sum(len(p.tokens) for p in lane.pieces if p.unit == 7) >= QUESTION_TOKENS


def test_what_is_kept_of_a_still_scene(model, tmp_path):
    """The first moment alone, or that of each chunk; and the table of benchmarks/video_clips.py."""
    clip = write_clip(tmp_path / "a.mp4", [0.0, 0.5], size=(60, 88))
    still = write_still(clip, tmp_path / "still.mkv")
    shares = kept_shares(model.front_end, still)
    assert [round(1 / share) for share in shares.values()] == [4, 15, 4, 60, 60, 60]


def test_a_model_that_sees_nothing(tmp_path, capfd):
    command = ["bench", "video", "--model", "shape:6x256", "--clip", "a.mp4"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "such as shape:qwen2.5-vl-3b" in capfd.readouterr().err
