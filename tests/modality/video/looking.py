"""What a video gives moment by moment, and in one masked forward: the two sides of the law."""

from contextlib import contextmanager

import numpy as np
import torch

from proactivellm.core.packing import IGNORE, MEDIA_ID, Sample, Written, pack
from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.forward.lanes import LaneInput, Piece
from proactivellm.forward.packed import packed_hidden

MOMENTS = 4
GRID = Grid(2, 3, 2)  # of frames of 60 x 88
WRITTEN = [5, 6, 7, 8, 9, 3]
SCHEDULE = [1, 1, 2, 2, 4, 4]


def noise() -> np.ndarray:
    """Frames of half a moment more than MOMENTS - 1."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2 * MOMENTS - 1, 60, 88, 3), dtype=np.uint8)


def half_still() -> np.ndarray:
    """Every second moment repeats the one before it."""
    frames = noise()
    return np.concatenate([frames[:2], frames[:2], frames[4:6], frames[4:6]])


def seen(model, frames, sizes=(2, 2, 2, 1)) -> list[Unit]:
    """Units of frames that arrive so many at a time."""
    ear, now, units = model.front_end.open(2), 0, []
    for size in sizes:
        units += ear.push(frames[now : now + size], (now + size) / 2)
        now += size
    return units + ear.finish(now / 2)


def packed(model, units, schedule):
    """Everything as one masked sequence; rows that predict come first in the result."""
    prompt = model.prompt
    places = [[MEDIA_ID] * unit.grid.size for unit in units]
    source = [prompt.source_head, *places[:-1], [*places[-1], *prompt.source_tail]]
    target = Written(head=prompt.target_head, tokens=WRITTEN)
    grids = {number: unit.grid for number, unit in enumerate(units, 1)}
    sample = Sample(read={"source": source}, written={"target": target}, grids=grids)
    return pack(sample, [{"target": schedule}], model.layout)


def masked(model, units):
    """Logits of the tokens of WRITTEN under SCHEDULE, of one forward."""
    sequence = packed(model, units, SCHEDULE)
    rows = [row for row, label in enumerate(sequence.label) if label != IGNORE]
    media = torch.cat([unit.features for unit in units])
    return model.parts.project(packed_hidden(model, [sequence], [media])[0, rows])


def stepped(model, units):
    """Logits of the tokens of WRITTEN, as a session feeds them under SCHEDULE."""
    prompt, cache = model.prompt, model.new_cache()
    sequence, held, num_source = [*prompt.target_head, *WRITTEN], 0, 0
    written = 0
    for number, unit in enumerate(units, 1):
        pieces = [Piece("source", number, unit.features, unit.grid)]
        pieces = [Piece("source", 0, prompt.source_head), *pieces] if number == 1 else pieces
        if number == len(units):
            pieces.append(Piece("source", number, prompt.source_tail))
        while True:
            ready = len(prompt.target_head) + written
            open_tokens = Piece("target", 0, sequence[held:ready])
            counts = {"source": num_source, "target": held}
            step = LaneInput(lane=0, pieces=[*pieces, open_tokens], counts=counts, probe=-1)
            cache.lengths[0] = num_source + held
            output = model.step(cache, [step])
            num_source += step.added.get("source", 0)
            pieces = []
            if written == len(WRITTEN) or SCHEDULE[written] > number:
                break  # the probe is taken back
            yield output.logits_PV
            held, written = ready, written + 1


@contextmanager
def watching(model, **how):
    before = model.front_end.settings
    model.front_end.watch(**how)
    try:
        yield
    finally:
        model.front_end.settings = before
