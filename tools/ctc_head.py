"""A head of CTC for a model that listens and has none: its encoder stays as it is.

Run: python tools/ctc_head.py MODEL MANIFEST [MANIFEST ...] --out runs/ctc.pt [--epochs 30]
MODEL is a bundled model or a folder. Every recording of the manifests is heard once, without the
gate, and the linear layer of `modality/speech/ctc.py` is then trained on what came out, which takes
a minute for an hour of audio. Put the file into the folder of the model as `ctc.pt`: the policy
`ctc` looks there. A model that is trained with `ctc_weight` has the file already.
Legend: A = recordings, P = encoder outputs, D = encoder width, L = bytes.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nn_f
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from proactivellm.backbone.hub import find_folder
from proactivellm.files.replace import replacing
from proactivellm.metrics.transcripts import error_rates
from proactivellm.modality.speech.ctc import BLANK, NUM_CLASSES, CtcHead, spoken_text
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.front_end import SpeechFrontEnd, projected_width
from proactivellm.modality.speech.joined import GAP_S
from proactivellm.modality.speech.resample import RATE
from proactivellm.tasks.speech import read_manifest

Heard = tuple[Tensor, str]  # outputs [P, D] of a recording, and its text
BATCH = 32
HELD_BACK = 10  # every so many recordings are not trained on


def main() -> None:
    """Writes the file, and says how well it hears what it was not trained on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    torch.manual_seed(5)
    folder = find_folder(args.model)
    front_end = SpeechFrontEnd.load(folder, projected_width(folder))
    heard = [pair for manifest in args.manifests for pair in hear(front_end, manifest)]
    held = heard[::HELD_BACK]
    head = train([h for i, h in enumerate(heard) if i % HELD_BACK], args.epochs)
    texts = [spoken_text(outputs_PD, head) for outputs_PD, _ in held]
    rate = error_rates(texts, [text for _, text in held])["WER"].corpus()
    print(f"{len(heard)} recordings; of {len(held)} held back WER {rate:.1f} %")
    with replacing(args.out) as new:
        torch.save({name: value.half() for name, value in head._asdict().items()}, new)


@torch.inference_mode()
def hear(front_end: SpeechFrontEnd, manifest: Path) -> list[Heard]:
    """What the encoder makes of each recording that says something."""
    heard = []
    for item in read_manifest(manifest):
        if item.target and not item.source:
            mel_TF = torch.from_numpy(log_mel(joined(item.media), front_end.extractor))
            outputs_1PD = front_end.encode(mel_TF[None], torch.tensor([len(mel_TF)]))
            heard.append((outputs_1PD[0].clone(), item.target))
    return heard


def joined(files: Sequence[str]) -> np.ndarray:
    """The samples of files that are one recording, as they are streamed."""
    gap = np.zeros(round(GAP_S * RATE), np.float32)
    return np.concatenate([part for file in files for part in (gap, read_audio(file))][1:])


def train(heard: list[Heard], epochs: int) -> CtcHead:
    """The head that hears them best, by Adam."""
    layer, draw = nn.Linear(heard[0][0].shape[1], NUM_CLASSES), random.Random(5)
    steps = epochs * -(-len(heard) // BATCH)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(epochs):
        draw.shuffle(heard)
        losses = []
        for at in range(0, len(heard), BATCH):
            loss = loss_of(layer, heard[at : at + BATCH])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            losses.append(float(loss.detach()))
        if not epoch % 5 or epoch == epochs - 1:
            print(f"epoch {epoch}: {sum(losses) / len(losses):.3f} nats a byte", flush=True)
    return CtcHead(layer.weight.detach(), layer.bias.detach())


def loss_of(layer: nn.Linear, batch: list[Heard]) -> Tensor:
    """Mean over the bytes."""
    outputs_APD = pad_sequence([outputs for outputs, _ in batch], batch_first=True)
    spoken = [torch.tensor([*text.encode()]) + 1 for _, text in batch]
    return (
        nn_f.ctc_loss(
            layer(outputs_APD).log_softmax(-1).transpose(0, 1),
            torch.cat(spoken),
            torch.tensor([len(outputs) for outputs, _ in batch]),
            sizes_L := torch.tensor([len(text) for text in spoken]),
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,
        )
        / sizes_L.sum()
    )


if __name__ == "__main__":
    main()
