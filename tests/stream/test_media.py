"""The main path of a recording: turns, delays in ms of audio, replays, live and recorded."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.modality.speech.signals import noise, silence, voice
from tests.speech_models import save_tiny_listener

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.modality.speech import turns
from proactivellm.modality.speech.gate import GateSettings, Passage
from proactivellm.output.log import Instance
from proactivellm.policy.spec import parse_policy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream import (
    Job,
    MediaUnits,
    Replay,
    open_media,
    run_streams,
    source_turns,
    stream_units,
)

RATE = 16000
GATE = GateSettings(pause_s=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> StreamingCausalLM:
    streaming = load(save_tiny_listener(tmp_path_factory.mktemp("listener")))
    return streaming


@pytest.fixture(autouse=True)
def no_gate(model):
    model.front_end.gate = None


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sounds")
    sounds = {
        "voice": voice(1.3),
        "two turns": np.concatenate([voice(1.2), silence(1.5), voice(0.9), silence(0.7)]),
        "silence": silence(2.0),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    return {name: str(folder / f"{name}.wav") for name in sounds}


def test_a_replay_is_of_one_listener(model, files) -> None:
    """What one model, or one gate, has heard is not given to another."""
    replay = Replay()
    first = list(open_media(model, [files["voice"]], replay=replay))
    assert replay.complete and list(open_media(model, [files["voice"]], replay=replay)) == first
    assert not open_media(model, [files["two turns"]], replay=replay).replay.complete
    list(open_media(model, [files["voice"]], replay=replay))
    model.front_end.gate = GATE
    assert not open_media(model, [files["voice"]], replay=replay).replay.complete


def job(file: str, index: int = 0, **more) -> Job:
    return Job(index=index, source="", media=(file,), task="asr", **more)


def run(model, spec: str, *jobs: Job, **more) -> list[Instance]:
    done = run_streams(model, parse_policy(spec), jobs, sampling=Sampling(), **more)
    return sorted(done, key=lambda instance: instance.index)


def live(model, spec: str, heard: MediaUnits, window: Window | None = None):
    """Events and log entry of a live stream."""
    stream, events = stream_units(model, parse_policy(spec), heard, Sampling(), window), []
    while True:
        try:
            events.append(next(stream))
        except StopIteration as end:
            return events, end.value


def test_delays_are_the_audio_that_had_arrived(model, files):
    (instance,) = run(model, "wait-k:2", job(files["voice"]))
    assert instance.source_type == "speech" and instance.source == files["voice"]
    assert instance.source_length == instance.source_ms == 1300.0
    unit_ms = 1000 * model.front_end.unit_s
    assert instance.token_delays[0] == 2 * unit_ms  # wait-2, by units
    whole = [delay for delay in instance.token_delays if delay < 1300.0]
    assert whole == [round(delay / unit_ms) * unit_ms for delay in whole]
    assert instance.token_delays == sorted(instance.token_delays)
    assert instance.delays[-1] <= 1300.0 and instance.compute_ms > 0
    for delay, at_ms in zip(instance.delays, instance.elapsed, strict=True):
        assert at_ms > delay  # nothing is said before it was heard and thought about


def test_offline_writes_at_the_end(model, files):
    (instance,) = run(model, "offline", job(files["voice"]))
    assert set(instance.token_delays) == {1300.0}


def test_live_and_recorded_agree(model, files):
    for gate in (None, GATE):
        model.front_end.gate = gate
        (recorded,) = run(model, "wait-k:2", job(files["two turns"]))
        events, alone = live(model, "wait-k:2", open_media(model, [files["two turns"]]))
        assert alone.prediction == recorded.prediction != ""
        assert alone.delays == recorded.delays
        assert alone.token_delays == recorded.token_delays
        assert alone.source_length == recorded.source_length
        assert alone.forwards == recorded.forwards
        written = [event for event in events if event.kind == "WRITE"]
        assert "".join(event.text for event in written) == alone.prediction
        assert 1000 * written[0].media_s == pytest.approx(alone.token_delays[0])


def test_each_turn_is_a_stream_of_its_own(model, files):
    model.front_end.gate = GATE
    first, second = source_turns(model, job(files["two turns"]))
    assert first[-1].end_s < 2.3 and second[0].start_s > 2.0 and second[0].end_s > 2.7
    (instance,) = run(model, "wait-k:1", job(files["two turns"]))
    alone = []
    for turn in (first, second):  # each written as if there were no other
        *_, entry = [live(model, "wait-k:1", units_of(model, turn))[1]]
        alone.append(entry.prediction.strip())
    assert " ".join(alone).split() == instance.prediction.split()
    gap = [b - a for a, b in zip(instance.token_delays, instance.token_delays[1:], strict=False)]
    assert max(gap) > 500.0 and min(gap) >= 0  # the pause


class CutsAtEachPush:
    """Stands for a gate that hears one long word."""

    def __init__(self, settings):
        self.num_samples = 0

    def hear(self, samples):
        start_s, end_s = self.num_samples / RATE, (self.num_samples + len(samples)) / RATE
        self.num_samples += len(samples)
        yield from ()  # nothing is left to the detector
        return [Passage(samples, start_s), Passage(samples[:0], end_s, ends_turn=True, is_cut=True)]

    def end(self):
        yield from ()
        return []


def test_words_that_are_cut_are_told_once_a_recording(model, files, monkeypatch):
    monkeypatch.setattr(turns, "Gate", CutsAtEachPush)
    model.front_end.gate = GATE
    for way in (
        lambda: run(model, "wait-k:1", job(files["voice"])),
        lambda: live(model, "wait-k:1", open_media(model, [files["voice"]])),
    ):
        with pytest.warns(UserWarning, match="without a pause was cut after 20 s") as told:
            way()
        assert len(told) == 1


def units_of(model, turn) -> MediaUnits:
    """A `MediaUnits` that gives units that were heard before."""
    replay = Replay([(turn, turn[-1].end_s, 0.0)], complete=True)
    return MediaUnits(model, (), RATE, replay=replay)


def test_silence_gives_an_empty_entry(model, files):
    model.front_end.gate = GATE
    silent, spoken = run(model, "wait-k:1", job(files["silence"]), job(files["voice"], 1))
    assert silent.prediction == "" and silent.delays == [] and silent.forwards == 0
    assert silent.source_length == 2000.0 and spoken.prediction
    _, alone = live(model, "wait-k:1", open_media(model, [files["silence"]]))
    assert alone.prediction == "" and alone.forwards == 0


def test_many_at_once_are_as_if_alone(model, files):
    model.front_end.gate = GATE
    jobs = [job(files[name], i) for i, name in enumerate(("voice", "two turns", "silence") * 2)]
    together = run(model, "wait-k:1", *jobs, limits=Limits(streams=3))
    for instance in together:
        (alone,) = run(model, "wait-k:1", jobs[instance.index], limits=Limits(streams=1))
        assert alone.prediction == instance.prediction
        assert alone.token_delays == instance.token_delays


def test_a_replay_is_heard_once(model, files, monkeypatch):
    replayed = job(files["two turns"], replay=Replay())
    model.front_end.gate = GATE
    (first,) = run(model, "wait-k:1", replayed)
    monkeypatch.setattr("proactivellm.modality.speech.turns.Listener", None)  # deaf from here on
    (again,) = run(model, "wait-k:1", replayed)
    assert again.prediction == first.prediction and again.delays == first.delays
    assert again.compute_ms > 0


def test_a_question_is_read_before_the_recording(model, files):
    asked = Job(index=0, source="was ist das", media=(files["voice"],), task="qa", reference="x")
    ((*units,),) = source_turns(model, asked)
    assert [unit.text for unit in units[:3]] == ["was", "ist", "das"]
    assert all(unit.features is None for unit in units[:3]) and units[3].features is not None
    (plain,) = source_turns(model, job(files["voice"]))
    assert len(units) == len(plain) + 3
    (instance,) = run(model, "wait-k:4", asked)
    assert instance.source == f"{files['voice']} was ist das"
    assert instance.token_delays[0] == 1000 * model.front_end.unit_s  # the fourth unit is audio


def test_each_turn_is_asked_also_when_two_share_a_block(model, files):
    model.front_end.gate = GATE
    samples, _ = soundfile.read(files["two turns"], dtype="float32")
    units = [unit for block in MediaUnits(model, [samples], RATE, "was ist das") for unit in block]
    asked = [i for i, unit in enumerate(units) if unit.text == "was"]
    assert len(asked) == 2 and asked[0] == 0 and units[asked[1] - 1].final


def test_files_are_joined(model, files):
    (instance,) = run(
        model, "wait-k:1", Job(index=0, source="", media=(files["voice"],) * 2, task="asr")
    )
    assert instance.source_length == pytest.approx(2 * 1300 + 100)


def test_a_long_stream_stays_in_its_window(tmp_path):
    model = load(save_tiny_listener(tmp_path, max_new_tokens=30))

    def arriving():
        for _ in range(6):  # 14 s and more, and the encoder has positions for 10 s
            yield np.concatenate([voice(0.7), noise(1.6, -30.0)])

    _, instance = live(
        model, "wait-k:1", MediaUnits(model, arriving(), RATE), Window(source=24, target=24)
    )
    assert instance.source_length == pytest.approx(13800.0)
    assert instance.dropped_units > 60 and instance.dropped_tokens > 0


def test_a_missing_file_is_named_and_others_go_on(model, files, tmp_path):
    missing = str(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="none.wav"):
        run(model, "wait-k:1", job(missing))


def test_a_model_that_does_not_listen_is_refused(files):
    deaf = load("tatoeba-de-en")
    with pytest.raises(ValueError, match="has no front end, and cannot take .*voice.wav"):
        run(deaf, "wait-k:1", job(files["voice"]))
    assert Path(files["voice"]).exists()
