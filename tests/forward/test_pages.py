"""Pages of a store: none is lost, none is given twice, runs stay whole where they can."""

import random

import pytest

from proactivellm.forward.pages import PagePool, StoreFull


def test_pages_are_handed_out_from_the_lowest_and_side_by_side() -> None:
    pool = PagePool(5)
    assert [pool.take() for _ in range(2)] == [0, 1]
    assert pool.take(after=3) == 4, "the page after the one named, if it is free"
    assert pool.take(after=0) == 2, "else the lowest"
    assert pool.take(after=4) == 3, "there is none after the last"
    with pytest.raises(StoreFull, match="all 5 pages are in use"):
        pool.take()
    pool.give([3, 1])
    assert pool.num_free == 2
    assert [pool.take(), pool.take()] == [1, 3]


def test_a_page_given_back_twice_is_a_mistake() -> None:
    pool = PagePool(2)
    page = pool.take()
    pool.give([page])
    with pytest.raises(AssertionError):
        pool.give([page])


def test_growth_adds_free_pages_at_the_end() -> None:
    pool = PagePool(1)
    assert pool.take() == 0
    pool.grow(2)
    assert (pool.num_pages, pool.num_free) == (3, 2)
    assert [pool.take(after=0), pool.take(after=1)] == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_taken_and_free_pages_are_all_pages(seed: int) -> None:
    rng = random.Random(seed)
    pool = PagePool(7)
    owners: dict[int, list[int]] = {owner: [] for owner in range(4)}
    for _ in range(600):
        owner = rng.choice(list(owners))
        mine = owners[owner]
        if rng.random() < 0.2:
            pool.give(mine)
            owners[owner] = []
        elif rng.random() < 0.01:
            pool.grow(rng.randrange(3))
        elif pool.num_free:
            free = set(range(pool.num_pages)) - {
                page for pages in owners.values() for page in pages
            }
            page = pool.take(mine[-1] if mine else None)
            wanted = mine[-1] + 1 if mine and mine[-1] + 1 in free else min(free)
            assert page == wanted
            mine.append(page)
        taken = [page for pages in owners.values() for page in pages]
        assert len(set(taken)) == len(taken) == pool.num_pages - pool.num_free
        assert set(taken) <= set(range(pool.num_pages))
        assert len(pool._lowest) <= pool.num_pages, "pages taken and given leave nothing behind"
