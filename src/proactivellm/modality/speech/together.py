"""Several streams at work on what they hear, with one forward for all where they need the same.

What a stream does is a generator: it yields the `Work` that it needs computed, is sent the result,
and returns what came of it. Alone or with others, it runs the same code.
"""

from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


class Work(NamedTuple):
    """A computation that may run for several streams at once."""

    # What comes first in a stream is done first, so that the others catch up with it.
    order: int
    # Of a module and items: a result for each. If it raises, it may be called again for one.
    run: Callable[[Any, Sequence[Any]], Sequence[Tensor]]
    module: nn.Module
    item: Any
    alike: Hashable = None  # only items that are alike go together


Doing = Generator[Work, Tensor, Result]


def alone(doing: Doing[Result]) -> Result:
    """What comes of it; raises what it raises."""
    (result,) = together([doing])
    if isinstance(result, Exception):
        raise result
    return result


@torch.inference_mode()
def together(doings: Sequence[Doing[Result]]) -> list[Result | Exception]:
    """What comes of each, or what it raised: the others go on without it."""
    results: dict[int, Result | Exception] = {}
    asked: dict[int, Work] = {}

    def resume(index: int, value: Any) -> None:
        asked.pop(index, None)
        doing = doings[index]
        try:
            fails = isinstance(value, Exception)
            asked[index] = doing.throw(value) if fails else doing.send(value)
        except StopIteration as end:
            results[index] = end.value
        except Exception as error:
            results[index] = error

    for index in range(len(doings)):
        resume(index, None)
    while asked:
        groups: dict[Hashable, list[int]] = {}
        first = min(work.order for work in asked.values())
        for index, work in asked.items():
            if work.order == first:
                groups.setdefault((work.run, work.module, work.alike), []).append(index)
        for group in groups.values():
            values = _run([asked[index] for index in group])
            for index, value in zip(group, values, strict=True):
                resume(index, value)
    return [results[index] for index in range(len(doings))]


def apart(batch: Tensor) -> Sequence[Tensor]:
    """The rows [1, ...] of a batch; what keeps one does not keep the memory of the others."""
    return [batch] if len(batch) == 1 else [row.clone() for row in batch.split(1)]


def _run(works: Sequence[Work]) -> Sequence[Tensor | Exception]:
    """The result of each, or, if it cannot even be had alone, the error."""
    try:
        return works[0].run(works[0].module, [work.item for work in works])
    except Exception as error:
        if len(works) == 1:
            return [error.with_traceback(None)]  # its frames hold tensors of the attempt
    return [value for work in works for value in _run([work])]
