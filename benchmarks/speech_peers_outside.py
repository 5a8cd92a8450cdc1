"""What `speech_peers.py` compares with: it runs in an environment of its own, without this library.

    python benchmarks/speech_peers_outside.py SYSTEM JOBS OUT [--whisper FOLDER]

SYSTEM is `whisper` (faster-whisper, the whole recording at once), `whisper-agreement` (the same
model on a growing buffer every second: a word is final when two hypotheses in a row agree on it;
Macháček et al. 2023, arXiv 2307.14743, in code of our own), `pocketsphinx` (at the end of the
recording) or `pocketsphinx-agreement` (its partial hypotheses, every 320 ms, agreed on likewise).
JOBS is a list of WAV files in JSON, 16 kHz and mono. OUT gets a JSON line for each: words, how many
milliseconds of audio had arrived when each was final, and seconds of CPU time. The environment has
`faster-whisper`, `pocketsphinx` and `soundfile`; FOLDER holds a Whisper in the format of
CTranslate2.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

RATE = 16000
AGREES_EVERY_S = 1.0  # as whisper_streaming does by default
TRIMMED_S = 15.0  # a longer buffer is cut behind a whole segment
PROMPT_CHARACTERS = 200
PARTIAL = 5120  # samples between partial hypotheses, 320 ms


class Word(NamedTuple):
    """A word, and where it is in the recording, in seconds."""

    text: str
    start_s: float
    end_s: float


Written = list[tuple[str, float]]  # words, each with the ms that had arrived
Hears = Callable[[np.ndarray], Written]


def main() -> None:
    """Runs one system over all recordings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=tuple(SYSTEMS))
    parser.add_argument("jobs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--whisper", type=Path)
    args = parser.parse_args()
    hears = SYSTEMS[args.system](args.whisper)
    with args.out.open("w", encoding="utf-8") as out:
        for file in json.loads(args.jobs.read_text(encoding="utf-8")):
            samples = soundfile.read(file, dtype="float32")[0]
            begin = time.process_time()
            written = [(w, at_ms) for text, at_ms in hears(samples) for w in text.split()]
            told = {
                "words": [word for word, _ in written],
                "delays": [round(at_ms, 3) for _, at_ms in written],
                "cpu_s": time.process_time() - begin,
            }
            out.write(json.dumps(told, ensure_ascii=False) + "\n")
            out.flush()


class Whisper:
    """Whisper by faster-whisper, as whisper_streaming asks it: beam of 5, times of words."""

    def __init__(self, folder: Path) -> None:
        from faster_whisper import WhisperModel

        self.model = WhisperModel(str(folder), compute_type="int8", cpu_threads=1)

    def words(self, samples: np.ndarray, prompt: str = "") -> tuple[list[Word], list[float]]:
        """The words heard, and where whole segments end, in seconds."""
        segments, _ = self.model.transcribe(
            samples, language="en", beam_size=5, word_timestamps=True, initial_prompt=prompt or None
        )
        found = list(segments)
        words = [Word(w.word, w.start, w.end) for segment in found for w in segment.words or ()]
        return words, [segment.end for segment in found]


def at_the_end(folder: Path) -> Hears:
    """The whole recording at once."""
    whisper = Whisper(folder)

    def hears(samples: np.ndarray) -> Written:
        end_ms = 1000 * len(samples) / RATE
        return [(word.text, end_ms) for word in whisper.words(samples)[0]]

    return hears


def agreeing(folder: Path) -> Hears:
    """A growing buffer, heard again every second."""
    whisper = Whisper(folder)

    def hears(samples: np.ndarray) -> Written:
        online, written = Online(whisper), Written()
        step = int(AGREES_EVERY_S * RATE)
        for stop in [*range(step, len(samples), step), len(samples)]:
            written += [(w.text, 1000 * stop / RATE) for w in online.hear(samples[:stop])]
        rest = [(w.text, 1000 * len(samples) / RATE) for w in online.previous]
        return written + rest

    return hears


class Online:
    """The state of one recording: what is final, and the last hypothesis behind it."""

    def __init__(self, whisper: Whisper) -> None:
        self.whisper = whisper
        self.final: list[Word] = []
        self.previous: list[Word] = []
        self.begin_s = 0.0  # of the buffer

    def hear(self, so_far: np.ndarray) -> list[Word]:
        """Words that are final now."""
        buffer = so_far[int(self.begin_s * RATE) :]
        before = "".join(word.text for word in self.final if word.end_s <= self.begin_s)
        found, ends = self.whisper.words(buffer, before[-PROMPT_CHARACTERS:])
        words = [Word(t, a + self.begin_s, b + self.begin_s) for t, a, b in found]
        fresh = self._behind(words)
        count = agreed([w.text for w in self.previous], [w.text for w in fresh])
        new, self.previous = fresh[:count], fresh[count:]
        self.final += new
        if len(buffer) / RATE > TRIMMED_S:
            self._trim([end + self.begin_s for end in ends])
        return new

    def _behind(self, words: list[Word]) -> list[Word]:
        """Those that come after what is final, by their times and by what they repeat."""
        if not self.final:
            return words
        words = [word for word in words if word.start_s > self.final[-1].end_s - 0.1]
        for length in range(min(5, len(self.final), len(words)), 0, -1):
            tail = [word.text for word in self.final[-length:]]
            if tail == [word.text for word in words[:length]]:
                return words[length:]
        return words

    def _trim(self, ends: list[float]) -> None:
        last = self.final[-1].end_s if self.final else 0.0
        self.begin_s = max([self.begin_s, *(end for end in ends[:-1] if end <= last)])


def agreed(one: list[str], other: list[str]) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def sphinx_words(samples: np.ndarray) -> Iterator[tuple[list[str], float]]:
    """Hypotheses of pocketsphinx, each with the ms that had arrived; the last one is whole."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    decoder.start_utt()
    pcm = np.clip(samples * 32767, -32768, 32767).astype(np.int16)
    for start in range(0, len(pcm), PARTIAL):
        decoder.process_raw(pcm[start : start + PARTIAL].tobytes(), no_search=False, full_utt=False)
        yield _hypothesis(decoder), 1000 * min(start + PARTIAL, len(pcm)) / RATE
    decoder.end_utt()
    yield _hypothesis(decoder), 1000 * len(pcm) / RATE


def _hypothesis(decoder: Any) -> list[str]:
    found = decoder.hyp()
    return [] if found is None else found.hypstr.split()


def sphinx_at_the_end(_: Path | None) -> Hears:
    """Its last hypothesis."""

    def hears(samples: np.ndarray) -> Written:
        *_, (words, end_ms) = sphinx_words(samples)
        return [(word, end_ms) for word in words]

    return hears


def sphinx_agreeing(_: Path | None) -> Hears:
    """Words that two hypotheses in a row agree on; at the end what is left of the last one."""

    def hears(samples: np.ndarray) -> Written:
        written, previous, words, at_ms = Written(), list[str](), list[str](), 0.0
        for words, at_ms in sphinx_words(samples):
            count = agreed(previous, words)
            written += [(word, at_ms) for word in words[len(written) : count]]
            previous = words
        return written + [(word, at_ms) for word in words[len(written) :]]

    return hears


SYSTEMS: dict[str, Callable[[Any], Hears]] = {
    "whisper": at_the_end,
    "whisper-agreement": agreeing,
    "pocketsphinx": sphinx_at_the_end,
    "pocketsphinx-agreement": sphinx_agreeing,
}


if __name__ == "__main__":
    main()
