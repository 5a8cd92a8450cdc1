"""A second modality, as small as one can be: pictures of 3 x 3 pixels, ten a second, two to a unit.

What it has is all that training asks of a modality; nothing of it is named in `train`. Run as a
script in a folder with `recipe.toml`, it trains by that recipe, loads the model and streams a file.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.core.unit import Unit
from proactivellm.modality.base import Example, FrontEndTable, Media, media_units
from proactivellm.modality.kinds import KINDS, Kind

RATE = 10


class FramesFrontEnd(nn.Module):
    kind, unit_s, conditions, identity, width = "frames", 0.2, {}, "two frames", 8

    def __init__(self, lm_width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(9, self.width), nn.Linear(self.width, lm_width)

    def read(self, files: Sequence[str]) -> Media:
        frames = np.concatenate([np.load(file) for file in files])
        return Media(RATE, iter(np.split(frames, range(2, len(frames), 2))))

    def open(self, rate: int) -> "FramesEar":
        return FramesEar(self)

    def embed(self, media: np.ndarray) -> Tensor:
        features = torch.from_numpy(media)[None]
        num_frames = torch.tensor([len(media)])
        return self.embed_outputs(self.encode(features, num_frames), num_frames)[0]

    def encode(self, features: Tensor, num_frames_A: Tensor) -> Tensor:
        return torch.tanh(self.inner(features.flatten(2)))

    def num_outputs(self, num_frames_A: Tensor) -> Tensor:
        return num_frames_A

    def embed_outputs(self, outputs_APD: Tensor, num_frames_A: Tensor) -> Tensor:
        return self.outer(outputs_APD)

    def set_attention(self, name: str) -> None:
        """It has none."""

    def save(
        self,
        model_folder: str | Path,
        dtype: torch.dtype,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        folder = Path(model_folder) / self.kind
        folder.mkdir(exist_ok=True)
        whole = {k: v.detach().to(dtype) for k, v in (weights or self.state_dict()).items()}
        save_file(whole, folder / "net.safetensors")
        (folder / "frames.json").write_text("{}")

    @classmethod
    def load(cls, model_folder: str | Path, width: int, device: str) -> "FramesFrontEnd":
        front_end = cls(width)
        front_end.load_state_dict(load_file(Path(model_folder) / cls.kind / "net.safetensors"))
        return front_end.eval().to(device)


class FramesEar:
    def __init__(self, front_end: FramesFrontEnd) -> None:
        self.front_end = front_end

    @torch.inference_mode()
    def push(self, block: np.ndarray, now_s: float) -> list[Unit]:
        return [Unit(features=self.front_end.embed(block), end_s=now_s)]

    def finish(self, now_s: float) -> list[Unit]:
        return [Unit.end(now_s)]


class FramesExamples:
    kind, length_per_s = "frames", 10.0

    def __init__(self, blank_share: float) -> None:
        self.blank_share = blank_share

    def read(
        self, sources: Sequence[tuple[str, ...]], rng: np.random.Generator | None = None
    ) -> Example:
        frames = np.concatenate([np.load(file) for files in sources for file in files])
        blank = rng is not None and rng.random() < self.blank_share
        units = media_units(_unit_sizes(len(frames)))
        return Example(0 * frames if blank else frames, units, says_nothing=blank)

    def longest(self, sources: Sequence[tuple[str, ...]]) -> list[list[int]]:
        return self.read(sources).units


def _unit_sizes(num_frames: int) -> list[int]:
    return [2] * (num_frames // 2) + [1] * (num_frames % 2)


class Frames(FrontEndTable):
    blank_share: float = 0.0

    def make_front_end(
        self, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> FramesFrontEnd:
        return FramesFrontEnd(lm.config.get_text_config().hidden_size)

    def make_examples(self, front_end: FramesFrontEnd) -> FramesExamples:
        return FramesExamples(self.blank_share)


KINDS["frames"] = Kind(
    lambda: FramesFrontEnd, lambda name: name.endswith(".npy"), None, lambda: Frames
)


def main() -> None:
    """For each line of the input, a recipe: trains, loads and streams; tells what the log says."""
    from proactivellm.files.toml import load_toml
    from proactivellm.modality.loading import load
    from proactivellm.policy.spec import parse_policy
    from proactivellm.stream import Job, run_streams
    from proactivellm.train.recipe import Recipe
    from proactivellm.train.run import train

    for line in sys.stdin:
        try:
            out = train(load_toml(line.strip(), Recipe), "out")
        except ValueError as error:
            print(json.dumps({"error": str(error)}), flush=True)
            continue
        jobs = [Job(index=0, source="", media=("red.npy",), task="asr")]
        (instance,) = run_streams(load(out), parse_policy("wait-k:1"), jobs)
        told = {name: getattr(instance, name) for name in ("source_type", "source_length")}
        told |= {"prediction": instance.prediction, "delays": instance.delays}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
