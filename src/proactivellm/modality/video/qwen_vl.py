"""Qwen2.5-VL (arXiv 2502.13923) and Qwen3-VL (arXiv 2511.21631) as a streaming LM that sees.

The classes of transformers stay as they are: the whole model is the LM, of which a stream uses the
decoder and the output layer, and its vision encoder is the front end.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from proactivellm.backbone.folder import CONFIG_FILE, check_json_files, read_object, refusing
from proactivellm.backbone.pretrained import default_settings
from proactivellm.backbone.prompt import (
    SOURCE_MARK,
    Prompt,
    StreamSettings,
    load_settings,
    render_chat,
)
from proactivellm.backbone.weights import add_adapter, load_whole
from proactivellm.files.toml import validated
from proactivellm.modality.text import TextSegmenter
from proactivellm.modality.video.front_end import KIND, VideoFrontEnd
from proactivellm.modality.video.lens import LENS_FILE, Lens
from proactivellm.modality.video.pixels import PixelSettings
from proactivellm.modality.video.settings import SETTINGS_FILE, VideoSettings
from proactivellm.modality.video.timestamps import Timestamps

PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
VIDEO_TOKEN = "<|video_pad|>"  # stands for the frames in the chat template
AROUND = ("<|vision_start|>", "<|vision_end|>")  # what is seen, in the chat template


class Family(NamedTuple):
    """What tells one family from the other."""

    kind: type[PreTrainedModel]
    has_times: bool = False  # text around each moment, which begins a video of its own
    # Of a video whose folder does not say otherwise; the rest is in the configuration.
    usual: dict[str, Any] = {}
    # What a folder says of the pixels of a frame: of Qwen3-VL, of all frames of a video together,
    # which nobody knows while it runs.
    tells_pixels: bool = True


FAMILIES = {
    "qwen2_5_vl": Family(Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": Family(
        Qwen3VLForConditionalGeneration,
        has_times=True,
        # 128 to 768 tokens of 32 x 32 pixels, as its authors ask for of a frame.
        usual={
            "min_pixels": 128 * 32**2,
            "max_pixels": 768 * 32**2,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
        },
        tells_pixels=False,
    ),
}


def load_qwen_vl(
    folder: Path,
    *,
    device: str,
    dtype: torch.dtype | None,
    adapter: Path | None = None,
    merge: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings, VideoFrontEnd]:
    """The model of a checkpoint, its tokenizer, stream settings, and the front end.

    Settings are those beside an adapter, else of the folder, else of the chat template; a `dtype`
    of None is the file's.
    """
    model_type = str(read_object(folder / CONFIG_FILE)["model_type"])
    family = FAMILIES[model_type]
    what = f"cannot load {model_type} from {str(folder)!r}"
    check_json_files(folder)
    with refusing(what):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    whole = load_whole(family.kind, folder, what, dtype=dtype or "auto")
    if adapter is not None:  # before the encoder is taken, which it may change, too
        whole = add_adapter(whole, adapter, merge)
    whole = whole.eval().to(device)
    settings = load_settings(adapter or folder) or load_settings(folder)
    if settings is None and tokenizer.chat_template:
        settings = StreamSettings(prompt=video_prompt(tokenizer, bare=family.has_times))
    watching = video_settings(folder, whole.config.vision_config, family, adapter)
    front_end = front_end_of(whole, tokenizer, watching, lens_of(folder, adapter))
    return whole, tokenizer, settings or default_settings(tokenizer), front_end


def front_end_of(
    whole: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: VideoSettings,
    lens: Lens | None = None,
) -> VideoFrontEnd:
    """The vision encoder of a model of one of FAMILIES, whose weights it shares."""
    config: Any = whole.config
    model: Any = whole.model
    front_end = VideoFrontEnd(
        apart(model.visual),
        settings,
        getattr(config.vision_config, "tokens_per_second", 1),
        timestamps_of(whole, tokenizer) if FAMILIES[config.model_type].has_times else None,
        whole.get_input_embeddings,
        lens,
    )
    return front_end.eval()


def video_prompt(template: Any, bare: bool = False) -> Prompt:
    """Splits a chat template around a question and the frames after it, in one user turn.

    ValueError if the template is broken, or does not put the question before the video token, each
    in one place.

    Args:
        bare: leave out what stands around the frames: it comes with each moment.
    """
    content = [{"type": "text", "text": SOURCE_MARK}, {"type": "video", "video": ""}]
    turns, whole = render_chat(template, [{"role": "user", "content": content}])
    before, _, rest = turns.partition(SOURCE_MARK)
    between, _, tail = rest.partition(VIDEO_TOKEN)
    if before + SOURCE_MARK + between + VIDEO_TOKEN + tail != turns or not whole.startswith(turns):
        raise ValueError(
            f"the chat template does not put a question before {VIDEO_TOKEN}, each in one place"
        )
    head = whole[len(turns) :]
    if bare:
        between, tail = between.removesuffix(AROUND[0]), tail.removeprefix(AROUND[1])
    return Prompt(source_head=before, source_open=between, source_tail=tail, target_head=head)


def timestamps_of(whole: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Timestamps:
    """What puts text around the moments that a model of a family with times sees."""
    config = whole.config
    return Timestamps(
        TextSegmenter(tokenizer).whole,
        whole.get_input_embeddings(),
        config.vision_start_token_id,
        config.vision_end_token_id,
    )


def apart(tower: nn.Module) -> nn.Module:
    """The encoder with a configuration of its own, around the same weights.

    The attention that a stream sets in the model would be set in its encoder as well.
    """
    shared = {id(tensor): tensor for tensor in (*tower.parameters(), *tower.buffers())}
    return copy.deepcopy(tower, shared)


def shape_of(vision: Any, family: Family) -> dict[str, Any]:
    """What the configuration of an encoder says of the pixels that it takes."""
    return {
        "patch": vision.patch_size,
        "frames": vision.temporal_patch_size,
        "merge": vision.spatial_merge_size,
        **family.usual,
    }


def video_settings(
    folder: Path, vision: Any, family: Family, beside: Path | None = None
) -> VideoSettings:
    """What `video.json` says, else the processor's files, else what the configuration implies.

    That in the folder `beside` comes first.
    """
    file = _stored(SETTINGS_FILE, folder, beside)
    if file is not None:
        return validated(read_object(file), VideoSettings, str(file))
    shape = shape_of(vision, family)
    stored = next((folder / name for name in PROCESSOR_FILES if (folder / name).is_file()), None)
    if stored is None:
        return VideoSettings(pixels=PixelSettings(**shape))
    told = read_object(stored)
    size = told.get("size") or {}
    found = {"mean": told.get("image_mean"), "std": told.get("image_std")}
    if family.tells_pixels:
        found["min_pixels"] = told.get("min_pixels") or size.get("shortest_edge")
        found["max_pixels"] = told.get("max_pixels") or size.get("longest_edge")
    given = shape | {name: value for name, value in found.items() if value is not None}
    return VideoSettings(pixels=validated(given, PixelSettings, str(stored)))


def lens_of(folder: Path, beside: Path | None = None) -> Lens | None:
    """That of a folder, or of the folder `beside`, which comes first; None if there is none."""
    file = _stored(LENS_FILE, folder, beside)
    return None if file is None else Lens.load(file)


def _stored(name: str, folder: Path, beside: Path | None) -> Path | None:
    places = [place / KIND / name for place in (beside or folder, folder)]
    return next((file for file in places if file.is_file()), None)
