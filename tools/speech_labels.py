"""Labels recordings that have no transcript by what an offline Whisper hears in them.

Run: python tools/speech_labels.py MANIFEST --whisper runs/whisper-base --out NEW_MANIFEST
[--least -0.5]
Hears the audio of MANIFEST, each recording once (`orders-train.jsonl` has questions about what is
said, and no words), and writes a manifest of what Whisper is sure of: with a mean log-probability
of at least --least, at most five words a second (it writes more where it repeats itself), and no
digits, which nobody can tell from numbers spelt out. All that it heard is kept in a file beside
NEW_MANIFEST, so that the same command goes on with a run that was interrupted.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from proactivellm.metrics.transcripts import normalise
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.offline_whisper import OfflineWhisper
from proactivellm.modality.speech.resample import RATE

MOST_WORDS_PER_S = 5.0
WINDOW_S = 30.0

Line = dict[str, Any]


def main() -> None:
    """Writes the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--whisper", type=Path, required=True, help="model folder")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument("--least", type=float, default=-0.5, help="mean log-probability")
    args = parser.parse_args()
    heard = args.out.with_suffix(".heard.jsonl")
    hear(lines_of(args.manifest), OfflineWhisper(args.whisper), heard)
    chosen = [line for line in lines_of(heard) if is_sure(line, args.least)]
    with args.out.open("w", encoding="utf-8") as out:
        for line in chosen:
            kept = {key: value for key, value in line.items() if key != "confidence"}
            out.write(json.dumps(kept, ensure_ascii=False) + "\n")
    hours = sum(line["duration_s"] for line in chosen) / 3600
    print(f"{args.out}: {len(chosen)} of {len(lines_of(heard))} recordings, {hours:.2f} h")


def hear(lines: list[Line], whisper: OfflineWhisper, heard: Path) -> None:
    """Adds a line for each recording that has none yet."""
    seen = {line["audio"] for line in lines_of(heard)} if heard.exists() else set()
    with heard.open("a", encoding="utf-8") as out:
        for line in lines:
            if line["audio"] in seen or line["duration_s"] > WINDOW_S:
                continue
            seen.add(line["audio"])
            samples = read_audio(line["audio"])
            text, confidence = whisper.transcribe(samples)
            new = {
                "audio": line["audio"],
                "text": normalise(text),
                "confidence": round(confidence, 3),
                "duration_s": round(len(samples) / RATE, 3),
                "id": line["id"].split()[0],
            }
            out.write(json.dumps(new, ensure_ascii=False) + "\n")
            out.flush()


def is_sure(line: Line, least: float) -> bool:
    """Whether a label can be learnt from."""
    words = line["text"].split()
    return (
        line["confidence"] >= least
        and 0 < len(words) <= MOST_WORDS_PER_S * line["duration_s"]
        and not any(character.isdigit() for character in line["text"])
    )


def lines_of(file: Path) -> list[Line]:
    """The lines of a JSON lines file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
