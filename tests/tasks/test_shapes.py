"""Generated videos: what is asked of them, when it is known; the same for the same seed."""

import json
from itertools import pairwise

import numpy as np
import pytest

from proactivellm.modality.video.decoding import Video
from proactivellm.tasks.shapes import (
    COLOURS,
    FPS,
    KINDS,
    SIDE,
    Clip,
    Event,
    ask,
    draw_clips,
    frames_of,
    write_shapes,
)
from proactivellm.tasks.speech import read_manifest

CLIP = Clip(
    (Event("red", "circle", 1, 2), Event("blue", "square", 4, 3), Event("red", "square", 7, 2)),
    num_frames=10,
    seed=8,
)


def test_what_is_asked_and_when_it_is_known():
    """Whatever is drawn: the answer follows from the events, the time from the first frame."""
    seen = {}
    for seed in range(40):
        for question in ask(CLIP._replace(seed=seed)):
            seen[question.question] = (question.answer, question.evidence_s)
    told = "red circle blue square red square"
    assert seen["what appears ?"] == (told, [1.0, 1.0, 2.5, 2.5, 4.0, 4.0])
    assert seen["how many red shapes ?"] == ("two", 5.0)
    assert seen["how many squares ?"] == ("two", 5.0)
    assert seen["how many circles ?"] == ("one", 5.0)
    assert seen["which colour comes first , blue or red ?"] == ("red", 1.0)
    assert seen["has a blue square appeared ?"] == ("yes", 2.5)
    assert seen["has a red square appeared ?"] == ("yes", 4.0)
    assert {answer for q, (answer, _) in seen.items() if "white" in q} <= {"none", "no"}


def test_one_colour_alone_is_never_compared():
    clip = CLIP._replace(events=CLIP.events[:1])
    assert [question.kind for question in ask(clip)] == ["tell", "count", "appeared"]


def test_frames_show_the_events():
    frames = frames_of(CLIP)
    assert frames.shape == (10, SIDE, SIDE, 3) and frames.dtype == np.uint8
    for number, frame in enumerate(frames):
        shown = [name for name, rgb in COLOURS.items() if (frame == rgb).all(-1).sum() > 40]
        expected = [e.colour for e in CLIP.events if 0 <= number - e.first < e.num_frames]
        assert shown == expected


def test_splits_share_no_clip_and_seeds_repeat():
    train, again, other, test = (
        draw_clips(50, seed, split)
        for seed, split in ((0, "train"), (0, "train"), (1, "train"), (0, "test"))
    )
    assert train == again and train != other
    assert not {clip.seed for clip in (*train, *other)} & {clip.seed for clip in test}
    assert all(clip.num_frames % 2 == 0 for clip in train)
    pairs = [pair for clip in train for pair in pairwise(clip.events)]
    assert all(one[:2] != other[:2] for one, other in pairs)
    with pytest.raises(ValueError, match="'dev' is no split"):
        draw_clips(1, split="dev")


def test_a_manifest_and_its_clips(tmp_path):
    out = tmp_path / "train.jsonl"
    assert list(write_shapes(out, 3, kinds=("tell", "count"))) == [1, 2, 3]
    items, clips = read_manifest(out), draw_clips(3)
    assert len(items) == 6 and items[0].media == (str(tmp_path / "train" / "000000.mkv"),)
    asked = [question for clip in clips for question in ask(clip, ("tell", "count"))]
    assert [(i.source, i.target) for i in items] == [(q.question, q.answer) for q in asked]
    with Video(items[-1].media[0]) as video:
        frames = np.stack([frame.image for frame in video.frames(FPS)])
    assert np.array_equal(frames, frames_of(clips[-1]))
    line = json.loads(out.read_text().splitlines()[0])
    assert line["id"] == "tell-0" and line["group"] == items[0].group == "tell"
    assert items[0].evidence_s == tuple(line["evidence_s"])
    assert len(items[0].evidence_s) == 2 * len(clips[0].events)
    assert items[1].evidence_s == (clips[0].duration_s,)
    assert set(KINDS) == {"tell", "count", "first", "appeared"}
