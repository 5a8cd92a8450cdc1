"""Suite `video`: clips through a vision-language model in stages that overlap, and then a question.

Decoding, pictures to patches, vision encoder, token dropping and the prefill of the language model
are threads, as `modality.stages` has them: what a clip costs, which of them limits it, and how long
a question takes to its first token when so much was seen. A clip that is shown again and again is a
video of any length, of which rows tell what it has cost up to there.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from proactivellm.bench.measure import memory
from proactivellm.bench.workload import Bench, Endless, drawn_units
from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.forward.controls import control_of
from proactivellm.modality.stages import SOURCE, Pipeline, Stage
from proactivellm.modality.video.eye import Eye
from proactivellm.policy.fixed import Offline
from proactivellm.report.progress import Progress
from proactivellm.session.events import Write
from proactivellm.session.limits import Limits, Sight
from proactivellm.session.session import Session

DECODE = "decode"
ROWS = 12  # of a clip that is shown again and again
QUESTION_TOKENS = 16


def run_video(bench: Bench, result: dict[str, Any]) -> None:
    """Measures each clip, of each length; ValueError if the model takes no video."""
    model, options = bench.model, bench.options
    front_end = model.front_end
    if front_end is None or front_end.kind != "video":
        raise ValueError(
            "the suite video needs a --model that takes video: a checkpoint of Qwen2.5-VL or "
            "Qwen3-VL, or the shape of one, such as shape:qwen2.5-vl-3b"
        )
    front_end.watch(options.chunk, options.drop_tokens, options.look)
    model.look(control_of(front_end))
    sight = options.sight
    result |= {**front_end.conditions, "sight": sight and asdict(sight), "clips": []}
    # What the first step alone costs falls on a stream that saw nothing.
    time_to_first_token(model, Session(model, Offline()))
    runs = list(itertools.product(options.clips, options.loop or (None,)))
    for number, (clip, loop_s) in enumerate(runs):
        what = f"video: {Path(clip).name}"
        bench.progress(what, number, len(runs))
        row: dict[str, Any] = {}
        result["clips"].append(row)  # what was measured stays, if this is interrupted
        measure_clip(model, clip, row, sight, loop_s, bench.progress)


def measure_clip(
    model: Endless,
    clip: str,
    row: dict[str, Any],
    sight: Sight | None = None,
    loop_s: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Fills `row` with frames a second, times of stages and of a question, and what is kept.

    Args:
        row: with a `loop_s`, `history` has ROWS rows of it.
        sight: how far back is seen; None = to the beginning.
        loop_s: seconds for which the clip is shown again and again; None = it is shown once.
        progress: is told how many seconds of them were read.
    """
    row |= {"clip": clip, "loop_s": loop_s, "history": []}
    session = Session(model, Offline(), limits=Limits(sight=sight))
    pipeline, shown = Pipeline(_stages(model, session)), _Shown()
    _settle(model.device)
    started, cpu_s = time.perf_counter(), time.process_time()
    for read in pipeline.run(shown.counted(_blocks(model, clip, loop_s))):
        shown.add(read)
        seconds = shown.moments * model.front_end.settings.pixels.frames
        seconds /= model.front_end.settings.fps
        if loop_s:
            progress(f"video: {Path(clip).name}, seconds", int(seconds), loop_s)
        if loop_s and seconds >= loop_s * (len(row["history"]) + 1) / ROWS:
            row["history"].append({"video_s": seconds, **memory(model.device), **shown.lately()})
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    row |= {
        "frames": shown.frames,
        "seconds": wall_s,
        "cpu_s": cpu_s,
        "frames_per_s": shown.frames / wall_s,
        "tokens": shown.tokens,
        "kept_share": shown.tokens / shown.places,
        "entries": session.state.num_entries,
        "ttft_ms": 1000 * time_to_first_token(model, session),
        "bottleneck": _name(pipeline.bottleneck),
        "stages": {_name(spent.name): _times(vars(spent)) for spent in pipeline.spent},
    }


class _Read(NamedTuple):
    """A chunk that was read, as the prefill left it."""

    grid: Grid
    entries: int  # of the cache
    busy_s: float
    cpu_s: float


@dataclass
class _Shown:
    """What there was to see so far."""

    frames: int = 0
    moments: int = 0
    tokens: int = 0  # that were kept
    places: int = 0
    _lately: list[_Read] = field(default_factory=list)

    def counted(self, blocks: Iterator[Any]) -> Iterator[Any]:
        """The frames, counted as they are decoded."""
        for block in blocks:
            self.frames += len(block)
            yield block

    def add(self, read: _Read) -> None:
        """Counts a chunk that was read."""
        self.moments += read.grid.moments
        self.tokens += read.grid.seen
        self.places += read.grid.places
        self._lately.append(read._replace(grid=read.grid._replace(kept=None)))

    def lately(self) -> dict[str, Any]:
        """Entries now, and times of a chunk since this was called last."""
        read, self._lately = self._lately, []
        return {
            "entries": read[-1].entries,
            "prefill_ms": 1000 * fmean(chunk.busy_s for chunk in read),
            "prefill_cpu_ms": 1000 * fmean(chunk.cpu_s for chunk in read),
        }


def _blocks(model: Endless, clip: str, loop_s: int | None) -> Iterator[Any]:
    """Frames of a clip, once, or again and again as one video that ends after so many seconds.

    The file is decoded anew each time; where it ends, a chunk may be shorter than others.
    """
    front_end = model.front_end
    if loop_s is None:
        yield from front_end.read([clip]).blocks
        return
    left = loop_s * front_end.settings.fps
    for block in front_end.read(itertools.repeat(clip)).blocks:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return


def _stages(model: Endless, session: Session) -> list[Stage]:
    eye = Eye(model.front_end)

    def prefill(dropped: tuple[Tensor, Grid]) -> Grid:
        features, grid = dropped
        session.push(Unit(features=features, grid=grid, holds=True))  # a question will come
        return grid

    def read(dropped: tuple[Tensor, Grid]) -> _Read:
        started, cpu_s = time.perf_counter(), time.thread_time()
        grid = apart["prefill"](dropped)
        entries = session.state.num_entries
        return _Read(grid, entries, time.perf_counter() - started, time.thread_time() - cpu_s)

    works: dict[str, Callable[[Any], Any]] = {
        "prepare": eye.prepare,
        "encode": eye.encode,
        "drop": eye.drop,
        "prefill": prefill,
    }
    apart = {name: _apart(work, model.device) for name, work in works.items()}
    return [Stage(name, work) for name, work in (apart | {"prefill": read}).items()]


def _apart(work: Callable[[Any], Any], device: torch.device) -> Callable[[Any], Any]:
    """Work on a CUDA stream of its own, so that stages overlap on a device too.

    It is waited for: a stage then has its own time, and the next one may use what it gives.
    """
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)

    def alone(item: Any) -> Any:
        with torch.cuda.stream(stream):
            result = work(item)
            stream.synchronize()
        return result

    return alone


def time_to_first_token(model: Endless, session: Session) -> float:
    """Seconds from a question, about all that was read, to the first token; the stream is over."""
    ids = tuple(
        unit.token_ids[0] for unit in itertools.islice(drawn_units(model, 0), QUESTION_TOKENS)
    )
    _settle(model.device)
    started = time.perf_counter()
    for event in session.advance([Unit(token_ids=ids, asks=True), Unit.end()]):
        if isinstance(event, Write):
            break
    return time.perf_counter() - started


def _settle(device: torch.device) -> None:
    """Wait for all that a device was asked to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _name(stage: str) -> str:
    return DECODE if stage == SOURCE else stage


def _times(spent: dict[str, Any]) -> dict[str, Any]:
    """Of a stage: items, seconds, and how many items a second it could do alone."""
    busy_s = spent["busy_s"]
    per_s = spent["items"] / busy_s if busy_s else None
    return {name: value for name, value in spent.items() if name != "name"} | {"per_s": per_s}
