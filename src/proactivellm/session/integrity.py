"""Checks between steps that the counters of streams and the cache agree, whatever went wrong."""

from collections.abc import Iterable, Iterator, Sequence

from proactivellm.forward.cache import PAGE, ArrivalCache
from proactivellm.session.residence import Residence
from proactivellm.session.state import SessionState


class IntegrityError(RuntimeError):
    """The bookkeeping of an engine contradicts itself: a fault of this library."""


def check(
    cache: ArrivalCache,
    residence: Residence,
    states: Sequence[SessionState | None],
    active: Iterable[int],
    thorough: bool,
) -> None:
    """Compare the counters of streams with what the cache holds for them; see `Engine`.

    Raises:
        IntegrityError: names all that is wrong.
    """
    faults = list(_by_lane(cache, residence, states, active))
    if thorough:
        faults += _by_page(cache)
    if faults:
        raise IntegrityError(
            "the engine contradicts itself (please report this; its streams can be opened anew in "
            "another engine): " + "; ".join(faults)
        )


def _by_lane(
    cache: ArrivalCache,
    residence: Residence,
    states: Sequence[SessionState | None],
    active: Iterable[int],
) -> Iterator[str]:
    for lane in active:
        if states[lane] is None:
            yield f"lane {lane} is to be stepped, and no stream is open in it"
    num_held = 0
    for lane, state in enumerate(states):
        length, pages = cache.lengths[lane], len(cache.pages[lane])
        num_held += pages
        if length > pages * PAGE:
            yield f"lane {lane} has {length} entries in {pages} pages of {PAGE}"
        if pages and not residence.holds(lane):
            yield f"lane {lane} has {pages} pages and was not admitted"
        if lane in residence.parked:
            if pages:
                yield f"lane {lane} is parked and has {pages} pages"
            length = residence.parked[lane]["kinds"].shape[1]
        expected = 0 if state is None else state.num_entries
        if length != expected:
            yield f"lane {lane} has {length} entries and counts {expected}"
        if state is None and (lane in residence.parked or residence.holds(lane)):
            yield f"lane {lane} is in the cache, and no stream is open in it"
    if num_held + cache.pool.num_free != cache.pool.num_pages:
        yield (
            f"{num_held} pages are held and {cache.pool.num_free} free, of {cache.pool.num_pages}"
        )


def _by_page(cache: ArrivalCache) -> Iterator[str]:
    owners: dict[int, int] = {}
    for lane, pages in enumerate(cache.pages):
        for page in pages:
            if page in owners:
                yield f"page {page} belongs to lanes {owners[page]} and {lane}"
            owners[page] = lane
        if cache.page_table[lane, : len(pages)].tolist() != pages:
            yield f"the page table of lane {lane} is not that of its pages"
        if cache.contiguous[lane] != (pages == list(range(*_span(pages)))):
            yield f"lane {lane} is wrong about whether its pages lie side by side"
        units = cache.entry_kinds(lane)[2]
        if len(units) and int(units.max()) > cache.units[lane]:
            yield f"lane {lane} has entries of unit {int(units.max())} of {cache.units[lane]}"
    free = {page for page in range(cache.pool.num_pages) if cache.pool.is_free(page)}
    if free & owners.keys():
        yield f"pages {sorted(free & owners.keys())} are free and held"


def _span(pages: Sequence[int]) -> tuple[int, int]:
    return (pages[0], pages[0] + len(pages)) if pages else (0, 0)
