"""Turns of a recording: what is heard of them, when, and what silence costs."""

import numpy as np
import pytest
import torch
from tests.modality.speech.fronts import gap, new_listener, pieces
from tests.modality.speech.signals import noise, silence, voice

from proactivellm.modality.speech.encoder_stream import EncoderStream
from proactivellm.modality.speech.gate import Gate, GateSettings, Passage
from proactivellm.modality.speech.level import FRAME
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.speech_stream import SpeechStream
from proactivellm.modality.speech.turns import Listener

GATE = GateSettings(pause_s=0.6)
RECORDING = np.concatenate(
    [silence(1.5), voice(1.7), silence(2.0), voice(1.2), noise(3.0, -60)]
).astype(np.float32)


def listen(front_end, gate, chunk_ms, samples=RECORDING):
    listener = Listener(front_end, gate)
    pushes = pieces(samples, chunk_ms and chunk_ms * RATE // 1000)
    units = [unit for push in pushes for unit in listener.push(push)]
    return units + listener.finish()


def turns_of(units):
    """Units turn by turn: a final one ends each."""
    turns = [[]]
    for unit in units:
        turns[-1].append(unit)
        if unit.final:
            turns.append([])
    assert not turns.pop(), "the last unit ends a turn"
    return turns


def embeddings(units):
    return torch.cat([unit.features for unit in units if unit.features is not None])


def test_each_turn_is_a_recording_of_its_own():
    """What came before a turn changes nothing in it."""
    front_end = new_listener(320)
    turns = turns_of(listen(front_end, GATE, 320))
    assert len(turns) == 2
    gate, passed = Gate(GATE), [[]]
    for passage in [*gate.push(RECORDING), *gate.finish()]:
        passed[-1].append(passage.samples)
        if passage.ends_turn:
            passed.append([])
    for turn, parts in zip(turns, passed[:2], strict=True):
        stream = SpeechStream(front_end)
        alone = stream.push(np.concatenate(parts)) + stream.finish()
        assert gap(embeddings(turn), embeddings(alone)) < 1e-4


def test_units_have_the_times_of_the_recording():
    first, second = turns_of(listen(new_listener(320), GATE, 320))
    assert 1.0 < first[0].start_s < 1.6 and 3.1 < first[-1].end_s < 3.2 + GATE.pause_s
    assert 4.7 < second[0].start_s < 5.3 and 6.2 < second[-1].end_s < 6.4 + GATE.pause_s
    times = [(unit.start_s, unit.end_s) for unit in (*first, *second)]
    assert times == sorted(times)


@pytest.mark.parametrize("chunk_ms", [80, 1000, None])
def test_turns_do_not_depend_on_how_the_audio_arrives(chunk_ms):
    front_end = new_listener(320)
    expected, units = listen(front_end, GATE, 320), listen(front_end, GATE, chunk_ms)
    assert units == expected  # times and ends
    assert gap(embeddings(units), embeddings(expected)) < 1e-4


def test_the_end_of_a_turn_comes_with_the_push_in_which_its_pause_is_over():
    listener = Listener(new_listener(320), GATE)
    finals_s = []
    for number, push in enumerate(pieces(RECORDING, 1600), start=1):
        finals_s += [number * 0.1 for unit in listener.push(push) if unit.final]
    assert len(finals_s) == 2
    assert finals_s[0] == pytest.approx(3.2 + GATE.pause_s, abs=0.25)


def test_silence_costs_nothing_and_says_nothing(monkeypatch):
    calls = []
    hear = EncoderStream.hear
    monkeypatch.setattr(
        EncoderStream, "hear", lambda *args, **last: calls.append(1) or hear(*args, **last)
    )
    listener = Listener(new_listener(320), GATE)
    for _ in range(30):
        assert listener.push(silence(1.0)) == []
    assert listener.push(noise(5.0, -60)) == []
    assert listener.finish() == [] and not calls
    listen(new_listener(320), GATE, 320)
    assert calls


class Scripted:
    """Stands for the gate: all passes, and letters say where it heard speech."""

    def __init__(self, script):
        self.script, self.num_frames = script, 0

    def hear(self, samples):
        yield from ()
        passages = []
        for frame in samples.reshape(-1, FRAME):
            letter = self.script[self.num_frames]
            passages.append(Passage(frame, self.num_frames * FRAME / RATE, speech=(letter == "s",)))
            self.num_frames += 1
        return passages

    def end(self):
        yield from ()
        end_s = self.num_frames * FRAME / RATE
        return [Passage(np.zeros(0, np.float32), end_s, ends_turn=True)]


def listen_to(front_end, script, chunk=FRAME):
    """Units, and after how many frames each came."""
    listener = Listener(front_end, GATE)
    listener._gate = Scripted(script)
    samples = noise(len(script) * FRAME / RATE, -30)
    found = []
    for at in range(0, len(samples), chunk):
        units = listener.push(samples[at : at + chunk])
        found += [(unit, (at + chunk) // FRAME) for unit in units]
    return found + [(unit, None) for unit in listener.finish()], samples


@pytest.mark.parametrize(
    ("script", "came"),  # ten frames make a unit
    [
        ("s" * 40, [10, 20, 30, 40]),
        ("s" * 10 + "." * 20 + "s" * 10, [10, 40]),  # a pause comes with what is said next,
        ("s" * 10 + "." * 25 + "s" * 5, [10, 40]),
        ("s" * 20 + "." * 20, [10, 20]),  # or with the end;
        ("s" * 10 + "ss" + "." * 18 + "s" * 10, [10, 40]),  # the detector's lag is no speech,
        ("s" * 10 + "sss" + "." * 17 + "s" * 10, [10, 20, 40]),
        ("." * 30 + "s" * 10, [10, 20, 30, 40]),  # before the first word there is nothing to hold
    ],
)
def test_a_silent_unit_comes_with_the_next_that_is_not(script, came):
    front_end = new_listener(320)
    found, samples = listen_to(front_end, script)
    whole = [(unit, after) for unit, after in found if after is not None]
    assert [after for _, after in whole] == came
    assert [unit.final for unit, _ in found] == [False] * len(came) + [True]
    # Nothing of it is lost: a unit is as long as what it covers.
    stream = SpeechStream(front_end)
    alone = stream.push(samples) + stream.finish()
    assert gap(embeddings([unit for unit, _ in found]), embeddings(alone)) < 1e-4
    bounds = [0.0, *(unit.end_s for unit, _ in found)]
    starts = [unit.start_s for unit, _ in found]
    assert starts == pytest.approx(bounds[:-1])


@pytest.mark.parametrize("chunk", [10 * FRAME, 20 * FRAME])
def test_what_is_held_back_does_not_depend_on_how_the_audio_arrives(chunk):
    front_end, script = new_listener(320), "s" * 15 + "." * 25 + "s" * 20 + "." * 20
    expected, found = listen_to(front_end, script)[0], listen_to(front_end, script, chunk)[0]
    assert [unit for unit, _ in found] == [unit for unit, _ in expected]


def test_a_voice_that_goes_on_makes_turns_of_bounded_length():
    settings = GATE.model_copy(update={"longest_s": 1.6})
    turns = turns_of(listen(new_listener(320), settings, 320, voice(4.0)))
    assert len(turns) == 4
    for before, after in zip(turns, turns[1:], strict=False):
        assert after[0].start_s == pytest.approx(before[-1].end_s, abs=FRAME / RATE)
    assert max(turn[-1].end_s - turn[0].start_s for turn in turns) <= 1.6 + 1e-6


def test_a_turn_that_the_recording_cuts_off_ends_with_it():
    (turn,) = turns_of(listen(new_listener(320), GATE, 320, voice(1.5)))
    assert turn[-1].end_s == pytest.approx(1.5)


def test_without_a_gate_the_whole_recording_is_one_turn():
    front_end = new_listener(320)
    (turn,) = turns_of(listen(front_end, None, 320))
    stream = SpeechStream(front_end)
    alone = stream.push(RECORDING) + stream.finish()
    assert gap(embeddings(turn), embeddings(alone)) < 1e-4
    assert turn[-1].end_s == pytest.approx(len(RECORDING) / RATE)
