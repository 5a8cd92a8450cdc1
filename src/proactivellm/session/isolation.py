"""Isolates faults: work that fails for all lanes is tried again for each lane alone."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from proactivellm.forward.pages import StoreFull

Item = TypeVar("Item")
Result = TypeVar("Result")

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def attempt(
    work: Callable[[Sequence[Item]], Result], items: Sequence[Item]
) -> list[tuple[Sequence[Item], Result | Exception]]:
    """Do a piece of work for all items at once, and, only if that raises, for each by itself.

    Work that raises may have changed nothing. Each group of items comes with its result or error:
    one group in the good case.
    """
    result = _try(work, items)
    if len(items) == 1 or not isinstance(result, Exception):
        return [(items, result)]
    return [([item], _try(work, [item])) for item in items]


def _try(work: Callable[[Sequence[Item]], Result], items: Sequence[Item]) -> Result | Exception:
    try:
        return work(items)
    except Exception as error:
        # Its frames hold tensors of the failed attempt; the next one may need their memory.
        return error.with_traceback(None)


def attempt_rows(
    work: Callable[[Sequence[int]], Tensor],
    rows: Sequence[int],
    result_P: Tensor,
    errors: dict[int, Exception],
) -> Tensor:
    """`attempt` for rows of a tensor [P]: the values that `work` gives for them, [P].

    What they were, `result_P`, is changed unless all are replaced. Rows that failed alone are added
    to `errors`, and keep the value they had.
    """
    for group, result in attempt(work, rows):
        if isinstance(result, Exception):
            errors.setdefault(group[0], result)
        elif len(group) == len(result_P):
            return result
        else:
            result_P[torch.tensor(group, device=result_P.device)] = result
    return result_P


def common_fault(errors: Sequence[Exception], num_items: int) -> Exception | None:
    """The first error if all items failed; that of a single item only if memory ran out.

    It is to be raised, because it is no fault of one lane.
    """
    if not errors or len(errors) < num_items:
        return None
    return errors[0] if num_items > 1 or out_of_memory(errors[0]) else None


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def reason(error: Exception) -> str:
    """An error in one line, for `SessionState.error`."""
    text = next(iter(str(error).strip().splitlines()), "")
    if text and isinstance(error, ValueError | StoreFull):  # these are written for the user
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
