"""Generated videos: coloured shapes appear, move and vanish, and questions are asked about them.

In: how many clips, a seed. Out: frames of each, and questions with their answers and with the time
at which the frames have shown enough to answer. Deterministic by seed. Legend: T = frames.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from proactivellm.files.replace import replacing, write_text
from proactivellm.modality.video.encoding import write_clip
from proactivellm.tasks.lookup import SPLITS

FPS = 2
SIDE = 48  # pixels of a frame, in height and width
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 80, 235),
    "yellow": (235, 220, 50),
    "pink": (235, 90, 200),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle")
NUMBERS = ("none", "one", "two", "three", "four", "five")
KINDS = ("tell", "count", "first", "appeared")
COUNTING = "counting"  # another kind, with the number so far as thoughts
_RADII = (7, 10)  # of a shape, in pixels
_NUM_EVENTS = (1, 5)
_SHOWN, _HIDDEN = (2, 4), (0, 2)  # frames that a shape is seen, and that nothing is


class Event(NamedTuple):
    """A shape that is seen for some frames."""

    colour: str
    shape: str
    first: int  # its first frame
    num_frames: int


class Clip(NamedTuple):
    """What happens in a video; `seed` draws the rest: places, ways, background, noise."""

    events: tuple[Event, ...]
    num_frames: int
    seed: int

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return self.num_frames / FPS


class Question(NamedTuple):
    """A question about a clip."""

    kind: str  # one of KINDS
    question: str
    answer: str
    # When what has been shown tells the answer, or, of what is told, each of its words; that of
    # nothing is the end.
    evidence_s: float | list[float]
    thoughts: tuple[tuple[float, str], ...] | None = None  # by second; None = nothing is thought


def draw_clips(count: int, seed: int = 0, split: str = "train") -> list[Clip]:
    """Clips of one split, of which none is in another, whatever seeds; ValueError if unknown."""
    if split not in SPLITS:
        raise ValueError(f"shapes: {split!r} is no split: give one of {', '.join(SPLITS)}")
    rng = random.Random(f"shapes {split} {seed}")
    clips: list[Clip] = []
    while len(clips) < count:
        clip = _draw_clip(rng)
        # The last digit of what it draws by says which split it belongs to.
        if clip.seed % 10 in SPLITS[split]:
            clips.append(clip)
    return clips


def _draw_clip(rng: random.Random) -> Clip:
    now, events = rng.randint(*_HIDDEN), list[Event]()
    for _ in range(rng.randint(*_NUM_EVENTS)):
        shown = rng.randint(*_SHOWN)
        event = Event(rng.choice([*COLOURS]), rng.choice(SHAPES), now, shown)
        # One that is like the last would look like the same that has moved.
        if events and event[:2] == events[-1][:2]:
            other = [shape for shape in SHAPES if shape != event.shape]
            event = event._replace(shape=rng.choice(other))
        events.append(event)
        now += shown + rng.randint(*_HIDDEN)
    return Clip(tuple(events), now + now % 2, rng.randrange(10**9))


def frames_of(clip: Clip) -> np.ndarray:
    """Its frames, uint8 [T, SIDE, SIDE, 3]."""
    rng = np.random.default_rng(clip.seed)
    ground = rng.integers(0, 50, 3)
    frames = np.clip(ground + rng.normal(0, 6, (clip.num_frames, SIDE, SIDE, 3)), 0, 255)
    for event in clip.events:
        radius = int(rng.integers(_RADII[0], _RADII[1] + 1))
        start, end = rng.uniform(radius, SIDE - radius, (2, 2))
        for step in range(event.num_frames):
            centre = start + (end - start) * step / max(event.num_frames - 1, 1)
            inside = _inside(event.shape, centre, radius)
            frames[event.first + step][inside] = COLOURS[event.colour]
    return frames.astype(np.uint8)


def _inside(shape: str, centre: np.ndarray, radius: float) -> np.ndarray:
    """Which pixels a shape covers: bool [SIDE, SIDE]."""
    down, right = np.mgrid[:SIDE, :SIDE] - centre[:, None, None]
    if shape == "circle":
        return down**2 + right**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(down), abs(right)) <= 0.85 * radius
    return (down <= 0.8 * radius) & (2 * abs(right) <= down + radius)


def ask(clip: Clip, kinds: Sequence[str] = KINDS) -> list[Question]:
    """A question of each kind about a clip, the same for the same clip."""
    rng = random.Random(f"question {clip.seed}")
    made = {"tell": _tell, "count": _count, "first": _first, "appeared": _appeared}
    every = [made[kind](clip, rng) for kind in KINDS]
    every.append(_counting(clip, random.Random(f"counting {clip.seed}")))
    return [each for each in every if each is not None and each.kind in kinds]


def _tell(clip: Clip, rng: random.Random) -> Question:
    """Live captions: everything that appears, in order, each as soon as it is seen."""
    told = " ".join(f"{event.colour} {event.shape}" for event in clip.events)
    times = [(event.first + 1) / FPS for event in clip.events for _ in ("colour", "shape")]
    return Question("tell", "what appears ?", told, times)


def _count(clip: Clip, rng: random.Random) -> Question:
    """How often one of the colours, or of the shapes, appears; now and then one that does not."""
    shown = rng.choice(clip.events)
    what = rng.choice([shown.colour, shown.shape])
    if rng.random() < 0.25:
        what = rng.choice([*COLOURS, *SHAPES])
    number = sum(what in (event.colour, event.shape) for event in clip.events)
    plural = f"{what}s" if what in SHAPES else f"{what} shapes"
    return Question("count", f"how many {plural} ?", NUMBERS[number], clip.duration_s)


def _counting(clip: Clip, rng: random.Random) -> Question:
    """How many shapes, or of one colour, have appeared: the number so far is thought at each."""
    colour = rng.choice([None, rng.choice(clip.events).colour])
    counted = [event for event in clip.events if colour in (None, event.colour)]
    times = [(event.first + 1) / FPS for event in counted]
    thoughts = tuple(zip(times, NUMBERS[1:], strict=False))
    question = f"how many {colour or ''} shapes ?".replace("  ", " ")
    return Question(COUNTING, question, NUMBERS[len(counted)], clip.duration_s, thoughts)


def _first(clip: Clip, rng: random.Random) -> Question | None:
    """Which of two colours comes first; None where there is one alone."""
    order = list(dict.fromkeys(event.colour for event in clip.events))
    if len(order) < 2:
        return None
    pair = rng.sample(order, 2)
    answer = min(pair, key=order.index)
    question = f"which colour comes first , {pair[0]} or {pair[1]} ?"
    return Question("first", question, answer, _seen_s(clip, answer))


def _appeared(clip: Clip, rng: random.Random) -> Question:
    """Whether a colour, or a coloured shape, has appeared; "no" is known at the end alone."""
    event = rng.choice(clip.events)
    colour, shape = event.colour, event.shape
    yes = rng.random() < 0.5
    if not yes:
        seen = {(each.colour, each.shape) for each in clip.events}
        every = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in seen]
        colour, shape = rng.choice(every)
    first_s = _seen_s(clip, colour, shape) if yes else clip.duration_s
    return Question(
        "appeared", f"has a {colour} {shape} appeared ?", "yes" if yes else "no", first_s
    )


def _seen_s(clip: Clip, colour: str, shape: str | None = None) -> float:
    """When the first frame with such a shape has been shown."""
    firsts = (e.first for e in clip.events if e.colour == colour and shape in (None, e.shape))
    return (next(firsts) + 1) / FPS


def write_shapes(
    out: Path, count: int, seed: int = 0, split: str = "train", kinds: Sequence[str] = KINDS
) -> Iterator[int]:
    """Writes clips beside a manifest, and last of all the manifest; yields how many are there.

    The manifest has a line for each question (`tasks.speech`). Its clips lie in a folder of its
    name.
    """
    folder = out.parent / out.stem
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, clip in enumerate(draw_clips(count, seed, split)):
        name = folder / f"{number:06}.mkv"
        with replacing(name) as new:
            write_clip(new, frames_of(clip), FPS)
        for question in ask(clip, kinds):
            line = {
                "video": f"{folder.name}/{name.name}",
                "question": question.question,
                "text": question.answer,
                "duration_s": clip.duration_s,
                "evidence_s": question.evidence_s,
                **({} if question.thoughts is None else {"thoughts": question.thoughts}),
                "group": question.kind,
                "id": f"{question.kind}-{number}",
            }
            lines.append(json.dumps(line))
        yield number + 1
    write_text(out, "\n".join(lines) + "\n")
