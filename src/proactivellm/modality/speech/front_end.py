"""The front end for speech: features, encoder, projector, and how outputs become units.

A folder `speech/` inside an ordinary model folder holds it: `preprocessor_config.json` and the
encoder as transformers saves them, `projector.safetensors`, and `speech.json` with the settings.
Legend: B = recordings, T = mel frames, F = mel bands, P = encoder outputs, E = embeddings, D =
encoder width, H = LM width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from proactivellm.backbone.folder import broken_weights, check_json_files, read_object, refusing
from proactivellm.backbone.weights import load_whole
from proactivellm.core.unit import Unit
from proactivellm.files.replace import replacing_in, write_text
from proactivellm.files.toml import validated
from proactivellm.modality.base import Heard, Media
from proactivellm.modality.speech.ctc import HEAD_FILE, CtcHead
from proactivellm.modality.speech.encoder import AttentionSettings, CausalEncoder
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.modality.speech.joined import recorded_blocks
from proactivellm.modality.speech.projector import StackProjector
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.modality.speech.together import together
from proactivellm.modality.speech.turns import SpeechEar

KIND = "speech"  # also the name of its folder inside that of the model
SETTINGS_FILE, PROJECTOR_FILE = "speech.json", "projector.safetensors"


class _Stored(SpeechSettings):
    """The file `speech.json`."""

    gate: GateSettings | None = None


class SpeechFrontEnd(nn.Module):
    """Audio to embeddings of a language model.

    Args:
        tower: the encoder, `WhisperEncoder` or `Qwen2AudioEncoder`.
        projector: maps `stack` neighbouring outputs [B, P, D] to one embedding [B, E, H].
        gate: what it lets through is what the model has learned to hear; None = everything.
    """

    kind = KIND

    def __init__(
        self,
        extractor: WhisperFeatureExtractor,
        tower: nn.Module,
        projector: nn.Module,
        settings: SpeechSettings,
        gate: GateSettings | None = None,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.settings = settings
        self.gate = gate
        self.encoder = CausalEncoder(tower, AttentionSettings())
        self.encoder.attention = self._attention()
        self.projector = projector
        # Counts the words of streams; not trained here, and kept by the folder of the model.
        self.ctc: CtcHead | None = None

    @property
    def blocks_ms(self) -> list[int]:
        """What `hear_in_blocks` takes."""
        options = self.settings.blocks or (self.encoder.attention.block,)
        return [steps * self._step_ms for steps in sorted(options)]

    def hear_in_blocks(self, block_ms: int) -> None:
        """Lets streams that are opened from now on hear so much audio at once.

        What lies in a block looks both ways: a longer one is heard better, and later. ValueError if
        the model was not trained for it; streams that are open must end before.
        """
        options = self.blocks_ms
        if block_ms not in options:
            raise ValueError(
                f"the model hears in blocks of {', '.join(map(str, options))} ms, not {block_ms}"
            )
        block = block_ms // self._step_ms
        self.settings = self.settings.model_copy(update={"block": block})
        self.encoder.attention = self._attention()

    @property
    def _step_ms(self) -> int:
        return 2 * self.extractor.hop_length * 1000 // RATE

    def _attention(self) -> AttentionSettings:
        settings, pool = self.settings, self.encoder.pool
        # A step needs audio up to half a window after its end: with so many steps less in the first
        # unit, every unit is complete when its audio has arrived.
        late = -(-self.extractor.n_fft // 2 // (2 * self.extractor.hop_length))
        return AttentionSettings(
            block=settings.block or settings.unit * pool,
            lookahead=settings.lookahead,
            offset=-(-(late + settings.lookahead) // pool) * pool,
            drawn=settings.blocks,
        )

    @property
    def unit_s(self) -> float:
        return self.settings.unit * self.encoder.pool * 2 * self.extractor.hop_length / RATE

    @property
    def conditions(self) -> dict[str, Any]:
        return {"gate": None if self.gate is None else self.gate.model_dump()}

    @property
    def identity(self) -> str:
        return str(self.settings.model_dump(mode="json", exclude={"blocks"}))

    def read(self, files: Sequence[str]) -> Media:
        """Opens audio files, joined, in blocks of a unit; see `recorded_blocks`."""
        return Media(*recorded_blocks(files, self.unit_s))

    def open(self, rate: int) -> SpeechEar:
        """An ear for one recording of so many samples a second."""
        return SpeechEar(self, rate)

    def hear(self, heard: Sequence[Heard[SpeechEar]]) -> list[list[Unit] | Exception]:
        """See `HearsTogether`; what each hears is within 1e-5 of what it would have heard alone."""
        return together([each.ear.hear(each.block, each.now_s) for each in heard])

    def embed(self, media: np.ndarray) -> Tensor:
        """Embeddings [E, H] of a whole recording, float32 mono [N] at 16 kHz."""
        mel_TF = torch.from_numpy(log_mel(media, self.extractor)).to(self.device)
        embedded_1EH = self(mel_TF[None], torch.tensor([len(mel_TF)], device=self.device))
        return embedded_1EH[0, : self.num_embeddings(len(mel_TF))]

    @property
    def width(self) -> int:
        """D, channels of the encoder's outputs."""
        return self.encoder.width

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.parameters()).device

    @property
    def offset(self) -> int:
        """Outputs that the first unit is shorter than the others."""
        return self.encoder.attention.offset // self.encoder.pool

    def num_embeddings(self, num_frames: int) -> int:
        """Embeddings E that T mel frames become."""
        outputs, stack = self.encoder.num_outputs(num_frames), self.settings.stack
        return -(-(outputs + self.offset % stack) // stack) if outputs else 0

    def unit_sizes(self, num_frames: int) -> list[int]:
        """Embeddings in each unit of a recording of T mel frames."""
        whole = self.settings.unit // self.settings.stack
        left, size = self.num_embeddings(num_frames), whole - self.offset // self.settings.stack
        sizes = []
        while left > 0:
            if size > 0:
                sizes.append(min(size, left))
                left -= sizes[-1]
            size = min(size, 0) + whole
        return sizes

    def forward(self, mel_BTF: Tensor, num_frames_B: Tensor) -> Tensor:
        """Embeddings [B, E, H] of mel frames padded on the right; see `num_embeddings`."""
        return self.embed_outputs(self.encode(mel_BTF, num_frames_B), num_frames_B)

    def encode(self, features: Tensor, num_frames_A: Tensor) -> Tensor:
        """Encoder outputs of mel frames; see `CausalEncoder.forward`."""
        outputs_APD: Tensor = self.encoder(features, num_frames_A)
        return outputs_APD

    def num_outputs(self, num_frames_A: Tensor) -> Tensor:
        """Encoder outputs P of each recording."""
        return self.encoder.num_outputs(num_frames_A)

    def set_attention(self, name: str) -> None:
        """Takes an attention function of the registry of transformers."""
        self.encoder.tower.set_attn_implementation(name)

    def embed_outputs(self, outputs_BPD: Tensor, num_frames_B: Tensor) -> Tensor:
        """Projects the encoder outputs of whole recordings of so many frames: [B, E, H]."""
        num_outputs_B = self.encoder.num_outputs(num_frames_B)
        place_P = torch.arange(outputs_BPD.shape[1], device=outputs_BPD.device)
        inside_BP1 = (place_P < num_outputs_B[:, None])[..., None]
        return self.project(outputs_BPD * inside_BP1)

    def project(self, outputs_BPD: Tensor, first: bool = True) -> Tensor:
        """Projects outputs to [B, E, H]; what they lack of whole stacks is zero.

        They are zero after the end of a recording. Of the `first` ones, the first stack is shorter.
        """
        before = self.offset % self.settings.stack if first else 0
        missing = -(outputs_BPD.shape[1] + before) % self.settings.stack
        return self.projector(nn.functional.pad(outputs_BPD, (0, 0, before, missing)))

    def save(
        self,
        model_folder: str | Path,
        dtype: torch.dtype = torch.float16,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        whole = {k: v.detach().to(dtype) for k, v in (weights or self.state_dict()).items()}
        tower, projector = (
            {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
            for prefix in ("encoder.tower.", "projector.")
        )
        single = set() if self.settings.blocks else {"blocks"}
        stored = self.settings.model_dump(exclude=single)
        if self.gate is not None:
            stored["gate"] = self.gate.model_dump()
        with replacing_in(Path(model_folder) / KIND) as folder:
            self.extractor.save_pretrained(folder)
            self.encoder.tower.save_pretrained(folder, state_dict=tower)
            save_file(projector, folder / PROJECTOR_FILE)
            write_text(folder / SETTINGS_FILE, json.dumps(stored, indent=2) + "\n")

    @classmethod
    def load(cls, model_folder: str | Path, width: int, device: str = "cpu") -> Self:
        """Reads the folder `speech/`; the front end is in fp32, for inference.

        ValueError if there is none, or it does not fit the LM of this `width` H.
        """
        folder = Path(model_folder) / KIND
        if not (folder / SETTINGS_FILE).is_file():
            raise ValueError(f"{model_folder} has no front end for speech ({KIND}/{SETTINGS_FILE})")
        file = folder / SETTINGS_FILE
        stored = validated(read_object(file), _Stored, str(file))
        settings = SpeechSettings(**stored.model_dump(exclude={"gate"}))
        check_json_files(folder)
        what = f"{folder} holds no front end of this model"
        tower = load_whole(WhisperEncoder, folder, what, dtype=torch.float32)
        with refusing(what, lambda: broken_weights(folder)):
            extractor = WhisperFeatureExtractor.from_pretrained(folder)
            projector = StackProjector(tower.config.d_model, settings.stack, settings.hidden, width)
            projector.load_state_dict(load_file(folder / PROJECTOR_FILE))
        front_end = cls(extractor, tower, projector, settings, stored.gate)
        if (Path(model_folder) / HEAD_FILE).is_file():
            front_end.ctc = CtcHead.load(model_folder, front_end.encoder.width).to(device)
        return front_end.float().eval().to(device)


def projected_width(model_folder: str | Path) -> int:
    """Width H of the LM that the projector of a model folder was made for; ValueError if broken."""
    file = Path(model_folder) / KIND / PROJECTOR_FILE
    with refusing(f"cannot read {file}"):
        return len(load_file(file)["outer.bias"])
