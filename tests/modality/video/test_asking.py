"""A question while a video runs, and stages that overlap: what is read and written when."""

import itertools
import json

import numpy as np
import pytest
import torch
from tests.video_models import save_tiny_watcher

from proactivellm import load, parse_policy
from proactivellm.cli import main
from proactivellm.core.layout import SOURCE
from proactivellm.evaluation.own_writes import own_writes
from proactivellm.modality.text import TextSegmenter
from proactivellm.session.limits import Limits, Sight
from proactivellm.session.session import Session
from proactivellm.stream import Asking, Job, MediaUnits, Streams, stream_units
from proactivellm.stream.fork import branch
from proactivellm.stream.media import Hearing

from .clips import write_clip
from .looking import half_still, noise, watching

QUESTION = "how many cats"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher"))


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


def blocks(frames=None):
    frames = noise() if frames is None else frames
    return iter([frames[start : start + 2] for start in range(0, len(frames), 2)])


def order(model, at_s):
    """What is read in turn: m = a moment, q = the question, . = the end."""
    hearing = Hearing(model, 2, QUESTION, ask_at_s=at_s)
    units = [u for b in itertools.chain(blocks(), [None]) for u in hearing.push(b).units]
    kinds = ["." if u.is_end else "q" if u.grid is None else "m" for u in units]
    return "".join(kinds), units


@pytest.mark.parametrize(
    ("at_s", "read"),
    [(0, "qmmmm."), (1.5, "mqmmm."), (2, "mmqmm."), (3.5, "mmmqm."), (60, "mmmmq.")],
)
def test_the_question_comes_when_it_is_asked(model, at_s, read):
    found, units = order(model, at_s)
    assert found == read
    last = found.rindex("q")
    assert [unit.holds for unit in units] == [n < last for n in range(len(units))]
    (asked,) = (unit for unit in units if unit.asks)
    words = TextSegmenter(model.tokenizer).segment(QUESTION)
    assert asked.text == QUESTION and units[last] is asked
    assert asked.token_ids == tuple(itertools.chain(*(word.token_ids for word in words)))


@torch.inference_mode()
def test_nothing_is_written_before_it(model):
    """Also under a policy that would have written long before, however units are pushed."""
    _, units = order(model, 2)
    for sizes in ((1,) * len(units), (len(units),), (3, len(units) - 3)):
        session, left, first = Session(model, parse_policy("wait-k:1")), list(units), None
        for size in sizes:
            writes, left = session.push(left[:size]), left[size:]
            if writes and first is None:
                first = writes[0].units_read
        assert first == 3  # two moments, the question
        assert session.state.units_read == 5


@pytest.mark.parametrize("dropped", [None, "feature:0.999"])
@torch.inference_mode()
def test_stages_that_overlap_give_the_same(model, dropped):
    with watching(model, drop_tokens=dropped):
        alone, together = (
            [
                (units, media.received_s)
                for media in [MediaUnits(model, blocks(half_still()), 2, overlaps=overlaps)]
                for units in media
            ]
            for overlaps in (False, True)
        )
    assert alone == together  # but for features, which units are compared without
    for (units, _), (others, _) in zip(alone, together, strict=True):
        for unit, other in zip(units, others, strict=True):
            assert unit.is_end or torch.equal(unit.features, other.features)


def written(stream):
    return "".join(event.text for event in stream.events() if event.kind == "WRITE")


@pytest.mark.parametrize(
    "sight", [None, Sight(units=1), Sight(units=1, recall=1), Sight(units=2, beyond="dropped")]
)
@torch.inference_mode()
def test_what_was_watched_so_far_is_asked_about_and_the_video_goes_on(model, sight):
    """As if the video had ended there; and as if nothing had been asked."""
    policy = parse_policy("wait-k:1,stride=0.001")
    frames = np.concatenate([noise(), noise()[:5]])  # six moments

    def watch(frames, question, branches=()):
        limits = Limits(streams=3, sight=sight)
        streams, texts = Streams(model, policy, limits), []
        stream = streams.open(hearing=Hearing(model, 2, waits=True))
        for number, frame in enumerate(frames):
            stream.push(frame[None])
            assert not written(stream)
            if number in branches:
                twins = [branch(stream, Asking(asked)) for asked in (QUESTION, "who")]
                texts += [written(twin) for twin in twins]
                assert all(twin.ended for twin in twins) and not stream.ended
        stream.push(Asking(question))
        stream.close()
        return written(stream), texts

    whole, answers = watch(frames, "where is it", branches=(5, 9))
    alone, _ = watch(frames, "where is it")
    assert whole == alone
    first, last = watch(frames[:6], QUESTION)[0], watch(frames[:10], "who")[0]
    assert answers[0] == first and answers[3] == last and "" != first != last != ""


def test_a_stream_that_wrote_or_lags_is_not_asked_so(model):
    policy = parse_policy("wait-k:1,stride=0.001")
    streams = Streams(model, policy, Limits(streams=2))
    stream = streams.open(hearing=Hearing(model, 2))
    stream.push(np.random.default_rng(3).integers(0, 256, noise()[:2].shape, np.uint8))
    with pytest.raises(ValueError, match="heard up to here"):
        branch(stream, Asking(QUESTION))
    assert written(stream)
    with pytest.raises(ValueError, match="has written already"):
        branch(stream, Asking(QUESTION))
    assert streams.engine.states.count(None) == 1  # what was refused holds no lane


def test_a_source_that_breaks_off_is_told_after_what_came_before(model):
    # Frames of which it writes a whole character at once, and not a byte.
    frames = np.random.default_rng(3).integers(0, 256, noise().shape, np.uint8)

    def breaking():
        yield frames[:2]
        raise ValueError("the camera is gone")

    events = stream_units(
        model, parse_policy("wait-k:1"), MediaUnits(model, breaking(), 2, overlaps=True)
    )
    read = []
    with pytest.raises(ValueError, match="the camera is gone"):
        for event in events:
            read.append(event.units_read)
    assert max(read) == 1


def test_what_is_looked_at_again_stands_after_the_question_in_the_prompt(model, tmp_path):
    """The head is taught by what a session sees."""
    clip = str(write_clip(tmp_path / "a.mp4", [n / 2 for n in range(8)], size=(60, 88)))
    job = Job(index=0, source=QUESTION, media=(clip,), task="qa")
    (one,) = own_writes(model, [job], num_views=1, num_lanes=1, seed=0)
    opening, *units = one.sample.read[SOURCE]
    assert opening == model.prompt.opening(TextSegmenter(model.tokenizer).whole(QUESTION))
    assert len(units) == 4 and len(one.media) == 4 * 6 and sorted(one.sample.grids) == [1, 2, 3, 4]


def test_the_command(folder, tmp_path, capfd):
    clip = write_clip(tmp_path / "a.mp4", [n / 2 for n in range(8)], size=(60, 88))
    log = tmp_path / "log"
    command = [
        "stream",
        "--model",
        str(folder),
        "--input",
        str(clip),
        "--policy",
        "wait-k:1,stride=0.1",
    ]
    bounded = ["--question", "who?", "--attend-chunks", "2", "--recall-chunks", "1"]
    for given, code in (
        (["--ask-at", "2"], 2),
        ([*bounded, "--ask-at", "2"], 0),
        (["--ask-at", "2", "--question", QUESTION, "--log", str(log)], 0),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, *given])
        assert int(ended.value.code or 0) == code
    told = capfd.readouterr().err
    assert "give --question" in told
    instance = json.loads(log.read_text())
    assert min(instance["delays"]) == 2000.0 and np.max(instance["delays"]) <= 4000.0
