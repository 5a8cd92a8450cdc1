"""Real clips through the stages of a vision-language model with random weights.

    python benchmarks/video_clips.py ../shared/data/intel-sample-videos runs/clips

DATA holds `captions.jsonl` with the files. Each clip goes through `bench video` once, as
shape:4x128-vl watches it with the settings of ViCoStream: chunks of 4 moments, chunk-intra:0.25,
the last 4 chunks in sight. A moment is two frames, one second. Then it is looked at once more, and
what each way of dropping keeps of its tokens is counted. Two Markdown tables are printed, and OUT
gets table.json and two clips: still.mkv, one frame of the first clip for a minute, which is among
the rows, and small.mkv, the longest clip of DATA at two frames a second in 168 x 96, for
`bench video --loop`.

Times are CPU time of the thread of a stage, in milliseconds for a second of video, so that what
else runs on the machine counts little: give OMP_NUM_THREADS=1. With random weights, what embeddings
say of likeness is not what trained ones say; only `pixel` does not depend on weights.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from proactivellm.bench.shapes import find_shape, random_model
from proactivellm.bench.watching import measure_clip
from proactivellm.bench.workload import Endless
from proactivellm.files.replace import write_json
from proactivellm.modality.video.decoding import Video
from proactivellm.modality.video.dropping import Dropper, Dropping
from proactivellm.modality.video.encoding import write_clip
from proactivellm.modality.video.front_end import CHUNK, VideoFrontEnd
from proactivellm.modality.video.pixels import resize
from proactivellm.session.limits import Sight

SHAPE = "shape:4x128-vl"
SIGHT = Sight(units=4, beyond="dropped")
# What is dropped, and moments in a chunk. 0.02 is 5 levels of 255, above the noise of a camera.
WAYS = (
    ("chunk-intra:0.25", CHUNK),
    ("chunk-intra:0.25", 16),
    ("chunk-intra:0.9", CHUNK),
    ("feature:0.5", CHUNK),
    ("feature:0.9", CHUNK),
    ("pixel:0.02", CHUNK),
)
STILL_S = 60
SMALL = (96, 168)  # height and width
FPS = 2


def clips_of(data: Path) -> list[Path]:
    """The files of a folder, in the order of its list."""
    lines = (data / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return [data / json.loads(line)["file"] for line in lines]


def write_still(clip: Path, out: Path) -> Path:
    """A clip in which the first frame of another one stays."""
    with Video(clip) as video:
        image = next(video.frames()).image
    write_clip(out, np.stack([image] * (STILL_S * FPS)), FPS)
    return out


def write_small(clip: Path, out: Path) -> Path:
    """A clip at FPS, with small pictures."""
    with Video(clip) as video:
        images = [torch.from_numpy(frame.image).movedim(-1, 0) for frame in video.frames(FPS)]
    small = [resize(image, SMALL).movedim(0, -1).numpy() for image in images]
    write_clip(out, np.stack(small), FPS)
    return out


@torch.inference_mode()
def kept_shares(front_end: VideoFrontEnd, clip: Path) -> dict[str, float]:
    """What each of WAYS keeps of the tokens of a clip."""
    front_end.watch(chunk=1)
    looked: list[tuple[Any, Any]] = []  # embeddings [1, N, D] and patches [1, N, P] of each moment
    for block in front_end.read([str(clip)]).blocks:
        prepared = front_end.prepare(block)
        shape = (1, prepared.grid.places, -1)
        embedded = front_end.embed_patches(prepared)
        looked.append((embedded.reshape(shape), prepared.patches.reshape(shape)))
    pixels = front_end.settings.pixels
    shares = {}
    for drop, chunk in WAYS:
        dropper = Dropper(Dropping.parse(drop), pixels)
        kept = [dropper.keep(*parts) for parts in _chunks(looked, chunk)]
        name = drop if chunk == CHUNK else f"{drop}, chunks of {chunk}"
        shares[name] = torch.cat(kept).float().mean().item()
    return shares


def _chunks(looked: Sequence[tuple[Any, Any]], chunk: int) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(looked), chunk):
        features, patches = zip(*looked[start : start + chunk], strict=True)
        yield torch.cat(features), torch.cat(patches)


def measure(model: Endless, clip: Path) -> dict[str, Any]:
    """A row of table.json."""
    front_end = model.front_end
    front_end.watch(chunk=CHUNK, drop_tokens=WAYS[0][0])
    row: dict[str, Any] = {}
    measure_clip(model, str(clip), row, SIGHT)
    return row | {"kept": kept_shares(front_end, clip)}


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """What a clip costs, and what is kept of it."""
    stages = list(rows[0]["stages"])
    print("| clip | video s | frames/s |", " | ".join(stages), "| limited by |")
    print("| --- | ---: | ---: |" + " ---: |" * len(stages) + " --- |")
    for row in rows:
        seconds = row["frames"] / FPS
        times = [f"{1000 * row['stages'][stage]['cpu_s'] / seconds:.1f}" for stage in stages]
        told = [f"{seconds:.1f}", f"{row['frames_per_s']:.1f}", *times, row["bottleneck"]]
        print("|", " | ".join([Path(row["clip"]).stem, *told]), "|")
    print("\n| clip |", " | ".join(rows[0]["kept"]), "|")
    print("| --- |" + " ---: |" * len(rows[0]["kept"]))
    for row in rows:
        shares = [f"{100 * share:.1f} %" for share in row["kept"].values()]
        print("|", " | ".join([Path(row["clip"]).stem, *shares]), "|")


def main(data: str, out: str) -> None:
    """Measures, prints and keeps."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    shape = find_shape(SHAPE)
    assert shape is not None
    model = Endless(random_model(shape))
    clips = clips_of(Path(data))
    longest = max(clips, key=lambda clip: clip.stat().st_size)
    write_small(longest, folder / "small.mkv")
    rows = []
    for clip in [*clips, write_still(clips[0], folder / "still.mkv")]:
        rows.append(measure(model, clip))
        print(f"{clip.name}: {rows[-1]['frames_per_s']:.1f} frames/s", file=sys.stderr)
        write_json(folder / "table.json", rows)
    print_tables(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
