"""The front end at work on one video: frames as they arrive become units, in stages.

In: frames of one or more moments. Out: a unit for each chunk that is whole, and the end. Legend: T
= frames, H and W = their height and width.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from proactivellm.core.unit import Unit
from proactivellm.modality.base import Heard
from proactivellm.modality.stages import Stage
from proactivellm.modality.video.eye import Eye

if TYPE_CHECKING:
    from proactivellm.modality.video.front_end import VideoFrontEnd


class _Looked(NamedTuple):
    """Units on their way through the stages."""

    units: list[Any]
    spans: list[tuple[float, float]]  # when each of them began and was complete, in seconds
    ended_s: float | None  # when the video ended; None = it goes on


class VideoEar:
    """The front end at work on one video."""

    def __init__(self, front_end: "VideoFrontEnd") -> None:
        self.front_end = front_end
        self._eye = Eye(front_end)
        self._waiting: list[np.ndarray] = []  # frames of a unit that is not whole
        self._began_s = 0.0

    def push(self, block: np.ndarray, now_s: float) -> list[Unit]:
        """Takes frames uint8 [T, H, W, 3] of one size."""
        return self._through(block, now_s)

    def finish(self, now_s: float) -> list[Unit]:
        """The last frame of an odd number is looked at as if it had been shown for longer."""
        return self._through(None, now_s)

    def stages(self) -> list[Stage]:
        """What `push` and `finish` do, see `WorksInStages`."""
        return [
            Stage("prepare", self._prepare),
            Stage("encode", lambda looked: self._each(looked, self._eye.encode)),
            Stage("drop", self._drop),
        ]

    def _through(self, block: np.ndarray | None, now_s: float) -> list[Unit]:
        item: Any = Heard(self, block, now_s)
        for stage in self.stages():
            item = stage.work(item)
        units: list[Unit] = item
        return units

    def _prepare(self, heard: Heard["VideoEar"]) -> _Looked:
        looked = _Looked([], [], None if heard.block is not None else heard.now_s)
        for frame in () if heard.block is None else heard.block:
            if self._waiting and self._waiting[0].shape != frame.shape:
                self._cut(looked, heard.now_s)  # nothing more of its size will come
            self._waiting.append(frame)
            if len(self._waiting) == self.front_end.settings.frames:
                self._cut(looked, heard.now_s)
        if heard.block is None and self._waiting:
            self._cut(looked, heard.now_s)
        return looked

    def _cut(self, looked: _Looked, now_s: float) -> None:
        looked.units.append(self._eye.prepare(np.stack(self._waiting)))
        looked.spans.append((self._began_s, now_s))
        self._waiting, self._began_s = [], now_s

    def _each(self, looked: _Looked, work: Callable[[Any], Any]) -> _Looked:
        return looked._replace(units=[work(unit) for unit in looked.units])

    def _drop(self, looked: _Looked) -> list[Unit]:
        units = []
        for encoded, (start_s, end_s) in zip(looked.units, looked.spans, strict=True):
            features, grid = self._eye.drop(encoded)
            units.append(Unit(features=features, start_s=start_s, end_s=end_s, grid=grid))
        return units if looked.ended_s is None else [*units, Unit.end(looked.ended_s)]
