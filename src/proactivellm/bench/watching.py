"""Suite `video`: clips through a vision-language model in stages that overlap.

Decoding, pictures to patches, vision encoder, token dropping and the prefill of the language model
are threads, as `modality.stages` has them: what a clip costs, and which of them limits it.
"""

import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from proactivellm.bench.workload import Bench
from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import front_end_of
from proactivellm.modality.stages import SOURCE, Pipeline, Stage
from proactivellm.modality.video.eye import Eye
from proactivellm.modality.video.front_end import VideoFrontEnd
from proactivellm.policy.fixed import Offline
from proactivellm.session.limits import Limits, Sight
from proactivellm.session.session import Session

DECODE = "decode"


def run_video(bench: Bench, result: dict[str, Any]) -> None:
    """Measures each clip once; ValueError if the model takes no video."""
    model, options = bench.text_model, bench.options
    if model is None:
        raise ValueError("the suite video needs a --model that takes video, no shape")
    front_end: Any = front_end_of(model, "video")
    front_end.watch(options.chunk, options.drop_tokens)
    seen = options.attend_chunks
    sight = None if seen is None else Sight(units=seen, beyond="dropped")
    result |= {**front_end.conditions, "attend_chunks": seen, "clips": {}}
    for number, clip in enumerate(options.clips):
        bench.progress(f"video: {clip}", number, len(options.clips))
        result["clips"][clip] = measure_clip(model, front_end, clip, sight)


def measure_clip(
    model: StreamingCausalLM, front_end: VideoFrontEnd, clip: str, sight: Sight | None
) -> dict[str, Any]:
    """Frames a second, time by stage, and what is kept of the tokens, of a clip read to its end."""
    session = Session(model, Offline(), limits=Limits(sight=sight))
    pipeline = Pipeline(_stages(front_end, session))
    blocks = front_end.read([clip]).blocks
    num_frames = 0

    def frames() -> Iterator[Any]:
        nonlocal num_frames
        for block in blocks:
            num_frames += len(block)
            yield block

    started = time.perf_counter()
    grids: list[Grid] = list(pipeline.run(frames()))
    wall_s = time.perf_counter() - started
    return {
        "frames": num_frames,
        "seconds": wall_s,
        "frames_per_s": num_frames / wall_s,
        "tokens": sum(grid.seen for grid in grids),
        "kept_share": sum(grid.seen for grid in grids) / sum(grid.places for grid in grids),
        "entries": session.state.num_entries,
        "bottleneck": _name(pipeline.bottleneck),
        "stages": {_name(spent.name): _times(vars(spent)) for spent in pipeline.spent},
    }


def _stages(front_end: VideoFrontEnd, session: Session) -> list[Stage]:
    eye = Eye(front_end)

    def prefill(dropped: tuple[Tensor, Grid]) -> Grid:
        features, grid = dropped
        session.push(Unit(features=features, grid=grid))
        return grid

    return [
        Stage("prepare", eye.prepare),
        Stage("encode", eye.encode),
        Stage("drop", eye.drop),
        Stage("prefill", prefill),
    ]


def _name(stage: str) -> str:
    return DECODE if stage == SOURCE else stage


def _times(spent: dict[str, Any]) -> dict[str, Any]:
    """Of a stage: items, seconds, and how many items a second it could do alone."""
    busy_s = spent["busy_s"]
    per_s = spent["items"] / busy_s if busy_s else None
    return {name: value for name, value in spent.items() if name != "name"} | {"per_s": per_s}
