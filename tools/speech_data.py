"""Manifests for the bundled speech model from the sets of real recordings, with synthetic voices.

Run: python tools/speech_data.py --data ../shared/data --out runs/speech-data [--synthetic 2500]
[--pauses]
Reads `speechocean762`, `fsdd`, `picovoice-barista`, `ljspeech-8` where it is there, and, for the
sentences of the synthetic voices, `tatoeba-en-de`; writes JSON lines that recipes name. Speakers of
the test manifests occur in no training manifest. The synthetic voices need espeak-ng on the path; 0
leaves them out. Noise, rooms and other speeds come while a model is trained (`[speech.augment]`).
`orders-*` are questions about spoken orders, `slots-*` the same orders as structured text, intent
first: "orderDrink; coffeeDrink=coffee; roast=light roast".
With --pauses also digit strings with 0.1 to 0.8 s between the digits: `digits-mixed-valid`
(every second string; thresholds are calibrated on it), `digits-pauses-test` (held-out speakers)
and `digits-pauses-known` (training speakers, recordings not trained on). The other sets stay the
same with and without it.
"""

import argparse
import csv
import gzip
import json
import random
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

Line = dict[str, Any]
HELD_OUT_DIGITS = ("theo", "yweweler")  # the last two of the six speakers
VALID_SPEAKERS = 10  # of the training speakers of speechocean762, the last ones
QUESTIONS = {
    "coffeeDrink": "which drink ?",
    "size": "which size ?",
    "roast": "which roast ?",
    "milkAmount": "which milk ?",
    "numberOfShots": "how many shots ?",
    "sugarAmount": "how much sugar ?",
}
UNKNOWN = "unknown"
VOICES = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")


def main() -> None:
    """Writes all manifests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for the manifests")
    parser.add_argument("--synthetic", type=int, default=2500, help="sentences to synthesise")
    parser.add_argument("--pauses", action="store_true", help="digit strings with pauses, too")
    args = parser.parse_args()
    data, out = args.data.resolve(), args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    train = rows(data / "speechocean762/train.tsv")
    speakers = sorted({row["speaker"] for row in train})
    kept = set(speakers[-VALID_SPEAKERS:])
    ocean = data / "speechocean762"
    write(out / "read-train.jsonl", (read(ocean, r) for r in train if r["speaker"] not in kept))
    write(out / "read-valid.jsonl", (read(ocean, r) for r in train if r["speaker"] in kept))
    write(out / "read-test.jsonl", (read(ocean, r) for r in rows(ocean / "test.tsv")))
    digits = [row | {"split": s} for s in ("train", "test") for row in rows(data / f"fsdd/{s}.tsv")]
    held = [row for row in digits if row["speaker"] in HELD_OUT_DIGITS and row["split"] == "test"]
    seen = [r for r in digits if r["speaker"] not in HELD_OUT_DIGITS and r["split"] == "train"]
    write(out / "digits-train.jsonl", strings(data / "fsdd", seen, 1500, rng))
    write(out / "digits-test.jsonl", strings(data / "fsdd", held, 100, rng))
    known = [r for r in digits if r["speaker"] not in HELD_OUT_DIGITS and r["split"] == "test"]
    write(out / "digits-valid.jsonl", strings(data / "fsdd", known, 100, random.Random(6)))
    if args.pauses:
        for name, clips, every in (
            ("digits-mixed-valid", known, 2),
            ("digits-pauses-test", held, 1),
            ("digits-pauses-known", known, 1),
        ):
            own = random.Random(name)  # a seed of its own: the sets do not hang on each other
            lines = strings(data / "fsdd", clips, 100, own)
            write(out / f"{name}.jsonl", with_pauses(lines, every, out / name, own))
    orders = sorted(rows(data / "picovoice-barista/labels.tsv"), key=lambda row: row["id"])
    for name, chosen, each in (("train", orders[:-100], 1), ("test", orders[-100:], 2)):
        lines = (o for row in chosen for o in order(data / "picovoice-barista", row, each, rng))
        write(out / f"orders-{name}.jsonl", lines)
        written = (structured(data / "picovoice-barista", row) for row in chosen)
        write(out / f"slots-{name}.jsonl", written)
    if (reader := data / "ljspeech-8").is_dir():  # a native reader, whole sentences: to test only
        write(
            out / "reader-test.jsonl", (read(reader, r) for r in rows(reader / "transcripts.tsv"))
        )
    read_aloud = [read(ocean, row) for row in rows(ocean / "test.tsv")]
    write(out / "long-test.jsonl", long_recordings(read_aloud, out / "long", rng))
    if args.synthetic:
        sentences = short_sentences(data / "tatoeba-en-de/train.en-de.tsv.gz", args.synthetic, rng)
        write(out / "synthetic-train.jsonl", synthesise(sentences, out / "synthetic", rng))


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a TSV file with a header."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def write(path: Path, lines: Iterable[Line]) -> None:
    """Writes a manifest, and says how long it is."""
    seconds, number = 0.0, 0
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            seconds, number = seconds + line["duration_s"], number + 1
    print(f"{path}: {number} lines, {seconds / 3600:.2f} h")


def read(folder: Path, row: dict[str, str]) -> Line:
    """A sentence read aloud."""
    return {
        "audio": str(folder / row["file"]),
        "text": row["text"].lower(),
        "duration_s": float(row["duration_s"]),
        "speaker": row.get("speaker", folder.name),
        "id": row["id"],
    }


def strings(
    folder: Path, clips: list[dict[str, str]], count: int, rng: random.Random
) -> Iterable[Line]:
    """Strings of 1 to 7 digits, joined from clips of one speaker."""
    by_speaker: dict[str, list[dict[str, str]]] = {}
    for clip in clips:
        by_speaker.setdefault(clip["speaker"], []).append(clip)
    for number in range(count):
        speaker = rng.choice(sorted(by_speaker))
        chosen = [rng.choice(by_speaker[speaker]) for _ in range(rng.randint(1, 7))]
        yield {
            "audio": [str(folder / clip["file"]) for clip in chosen],
            "text": " ".join(clip["text"] for clip in chosen),
            "duration_s": round(sum(float(c["duration_s"]) for c in chosen), 3),
            "speaker": speaker,
            "id": f"digits-{number}",
        }


def with_pauses(
    lines: Iterable[Line], every: int, folder: Path, rng: random.Random
) -> Iterable[Line]:
    """Pauses of 0.1 to 0.8 s between the digits of every so many strings, as faint noise."""
    import soundfile

    from proactivellm.modality.speech.files import read_audio

    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(rng.randrange(2**32))
    for number, line in enumerate(lines):
        if number % every == 0:
            parts: list[np.ndarray] = []
            for clip in line["audio"]:
                if parts:  # -80 dB: no room is as quiet as zeros
                    pause = noise.standard_normal(int(16000 * rng.uniform(0.1, 0.8)))
                    parts.append(1e-4 * pause.astype(np.float32))
                parts.append(read_audio(clip))
            file, samples = folder / f"{number}.flac", np.concatenate(parts)
            soundfile.write(file, samples, 16000, subtype="PCM_16")
            line |= {"audio": str(file), "duration_s": round(len(samples) / 16000, 3)}
        yield line


def order(folder: Path, row: dict[str, str], num: int, rng: random.Random) -> Iterable[Line]:
    """Questions about a spoken coffee order, one in five without an answer in it."""
    slots = {key: value.strip() for key, value in json.loads(row["slots_json"]).items()}
    told, untold = [k for k in QUESTIONS if k in slots], [k for k in QUESTIONS if k not in slots]
    for _ in range(num):
        pool = untold if not told or (untold and rng.random() < 0.2) else told
        slot = pool.pop(rng.randrange(len(pool)))
        answer = slots.get(slot, UNKNOWN)
        yield {
            "audio": str(folder / row["file"]),
            "question": QUESTIONS[slot],
            "text": answer,
            "answers": [answer],
            "duration_s": float(row["duration_s"]),
            "id": f"{row['id']} {slot}",
        }
        if not told and not untold:
            break


def structured(folder: Path, row: dict[str, str]) -> Line:
    """A spoken order as text that a program can read: its intent, then its slots by name."""
    slots = {key: value.strip() for key, value in json.loads(row["slots_json"]).items()}
    text = "; ".join([row["intent"], *(f"{key}={slots[key]}" for key in sorted(slots))])
    return {
        "audio": str(folder / row["file"]),
        "text": text,
        "answers": [text],
        "duration_s": float(row["duration_s"]),
        "id": row["id"],
    }


def long_recordings(lines: list[Line], folder: Path, rng: random.Random) -> Iterable[Line]:
    """Recordings of 30 sentences with pauses of 0.3 to 3 s, and the segments they are made of."""
    import soundfile

    from proactivellm.modality.speech.files import read_audio

    folder.mkdir(exist_ok=True)
    with (folder / "segments.jsonl").open("w", encoding="utf-8") as segments:
        for number in range(6):
            file, parts, num_samples = folder / f"{number}.flac", [], 0
            chosen = rng.sample(lines, 30)
            for line in chosen:
                samples = read_audio(line["audio"])
                segment = {
                    "audio": str(file),
                    "start_s": num_samples / 16000,
                    "end_s": (num_samples + len(samples)) / 16000,
                    "text": line["text"],
                }
                segments.write(json.dumps(segment) + "\n")
                pause = np.zeros(int(16000 * rng.uniform(0.3, 3.0)), np.float32)
                parts += [samples, pause]
                num_samples += len(samples) + len(pause)
            soundfile.write(file, np.concatenate(parts), 16000, subtype="PCM_16")
            yield {
                "audio": str(file),
                "text": " ".join(line["text"] for line in chosen),
                "duration_s": round(num_samples / 16000, 3),
                "id": f"long-{number}",
            }


def short_sentences(path: Path, count: int, rng: random.Random) -> list[str]:
    """English sentences of 2 to 9 words, letters only, each once."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        sentences = {line.split("\t")[0].lower().rstrip(".!?\n") for line in file}
    plain = [s for s in sorted(sentences) if re.fullmatch(r"[a-z]+('[a-z]+)?( [a-z']+){1,8}", s)]
    return rng.sample(plain, min(count, len(plain)))


def synthesise(sentences: list[str], folder: Path, rng: random.Random) -> Iterable[Line]:
    """Sentences spoken by espeak-ng, each in a voice, at a speed and a pitch drawn for it."""
    import soundfile

    folder.mkdir(exist_ok=True)
    for number, text in enumerate(sentences):
        voice = f"{rng.choice(VOICES)}+{rng.choice(VARIANTS)}"
        speed, pitch = rng.randint(110, 190), rng.randint(15, 90)
        wav, file = folder / "voice.wav", folder / f"{number:05}.flac"
        command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(wav)]
        subprocess.run([*command, text], check=True)
        samples, rate = soundfile.read(wav, dtype="int16")
        soundfile.write(file, samples, rate)
        yield {
            "audio": str(file),
            "text": text,
            "duration_s": round(len(samples) / rate, 3),
            "speaker": voice,
            "id": f"synthetic-{number}",
        }


if __name__ == "__main__":
    main()
