"""How well encoders hear sentences of speakers they do not know: word error rates in one run.

    python benchmarks/hearing.py MANIFEST --whisper runs/whisper-base \
        --whisper runs/whisper-tiny.en --forced runs/whisper-base --model runs/whisper-hearing

--whisper: a whole Whisper, offline, as it is; also with the floor of its features taken from the
loudest sound so far, as a stream knows it, in place of that of the recording ("running floor").
--forced: the same with its encoder fed in chunks, in blocks of 20 to 1,280 ms, untrained for it
(recordings are padded to 30 s, which its decoder wants). --model: a model folder with a head of
CTC, greedy, for each block that it was trained with, beside a block of the whole recording.
60 recordings are spread evenly over the manifest. CPU s / s: seconds of CPU time for a second of
audio, the silence of the padding not counted as audio. All texts in one normal form
(`metrics/transcripts.py`).
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proactivellm.metrics.bootstrap import summarise
from proactivellm.metrics.transcripts import error_rates
from proactivellm.modality.speech.ctc import CtcHead, spoken_text
from proactivellm.modality.speech.encoder import AttentionSettings, CausalEncoder
from proactivellm.modality.speech.encoder_stream import EncoderStream
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.front_end import SpeechFrontEnd, projected_width
from proactivellm.modality.speech.offline_whisper import OfflineWhisper
from proactivellm.modality.speech.resample import RATE
from proactivellm.tasks.item import Item
from proactivellm.tasks.speech import read_manifest

BLOCKS = (1, 16, 32, 64)  # steps of 20 ms
NUM_RESAMPLES = 1000
WINDOW = 30 * RATE
CHUNK = 32  # frames that arrive together, 320 ms
EVERYTHING = 10**6

Hears = Callable[[np.ndarray], str]


def main() -> None:
    """Prints a table, and a JSON line for each row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, default=60, help="recordings")
    parser.add_argument("--whisper", type=Path, action="append", default=[])
    parser.add_argument("--forced", type=Path, action="append", default=[])
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, help="JSON lines, with all texts")
    args = parser.parse_args()
    items = spread(read_manifest(args.manifest), args.limit)
    sounds = [np.concatenate([read_audio(file) for file in item.media]) for item in items]
    print(f"{len(items)} recordings, {sum(map(len, sounds)) / RATE:.0f} s")
    print("| | WER | CER | CPU s / s |\n| --- | ---: | ---: | ---: |")
    for name, hears in listeners(args):
        row = measured(name, hears, items, sounds)
        scores = f"{row['WER']:.1f} ± {row['WER_ci']:.1f} | {row['CER']:.1f}"
        print(f"| {name} | {scores} | {row['cpu_s_per_s']:.2f} |", flush=True)
        if args.out:
            with args.out.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


def spread(items: list[Item], limit: int) -> list[Item]:
    """So many of all, at even distances, so that many speakers are among them."""
    return [items[i * len(items) // limit] for i in range(min(limit, len(items)))]


def listeners(args: argparse.Namespace) -> Iterator[tuple[str, Hears]]:
    """What is compared, by name."""
    for folder in args.whisper:
        whisper = OfflineWhisper(folder)
        yield f"{folder.name}, offline", lambda sound, w=whisper: w.transcribe(sound).text
        yield (
            f"{folder.name}, offline, running floor",
            lambda sound, w=whisper: w.write(w.hear(running(w, sound))).text,
        )
    for folder in args.forced:
        whisper = OfflineWhisper(folder)
        for block in BLOCKS:
            encoder = causal(whisper, block)
            yield (
                f"{folder.name}, forced into blocks of {20 * block} ms",
                lambda sound, w=whisper, e=encoder: w.write(streamed(e, running(w, sound))).text,
            )
    for folder in args.model:
        front_end = SpeechFrontEnd.load(folder, projected_width(folder))
        head = CtcHead.load(folder, front_end.width)
        for block_ms in front_end.blocks_ms:
            front_end.hear_in_blocks(block_ms)
            yield (
                f"{folder.name}, CTC, blocks of {block_ms} ms",
                lambda sound, f=front_end, h=head: spoken_text(
                    streamed(f.encoder, log_mel(sound, f.extractor))[0], h
                ),
            )
        front_end.encoder.attention = AttentionSettings(block=EVERYTHING)
        yield (
            f"{folder.name}, CTC, one block",
            lambda sound, f=front_end, h=head: spoken_text(at_once(f, sound), h),
        )


def measured(
    name: str, hears: Hears, items: list[Item], sounds: list[np.ndarray]
) -> dict[str, Any]:
    """A row of the table."""
    begin = time.process_time()
    texts = [hears(sound) for sound in sounds]
    cpu = (time.process_time() - begin) / (sum(map(len, sounds)) / RATE)
    rates = summarise(error_rates(texts, [item.target for item in items]), NUM_RESAMPLES)
    return {"name": name, **rates, "cpu_s_per_s": cpu, "texts": texts}


def running(whisper: OfflineWhisper, sound: np.ndarray) -> np.ndarray:
    """Frames of 30 s as a stream would have them."""
    return log_mel(np.pad(sound, (0, max(0, WINDOW - len(sound)))), whisper.extractor)


def causal(whisper: OfflineWhisper, block: int) -> CausalEncoder:
    """Its encoder, untrained, in blocks that end a step early, as those of a front end do."""
    return CausalEncoder(
        whisper.model.get_encoder(), AttentionSettings(block=block, offset=1)
    ).eval()


@torch.inference_mode()
def streamed(encoder: CausalEncoder, mel_TF: np.ndarray) -> Tensor:
    """Outputs [1, S, D] of frames that arrive in chunks."""
    stream = EncoderStream(encoder)
    pieces = [stream.push(mel_TF[at : at + CHUNK]) for at in range(0, len(mel_TF), CHUNK)]
    return torch.cat([*pieces, stream.finish(mel_TF[:0])])[None]


@torch.inference_mode()
def at_once(front_end: SpeechFrontEnd, sound: np.ndarray) -> Tensor:
    """Outputs [P, D] of a whole recording, in one forward."""
    mel_TF = torch.from_numpy(log_mel(sound, front_end.extractor))
    return front_end.encode(mel_TF[None], torch.tensor([len(mel_TF)]))[0]


if __name__ == "__main__":
    main()
