"""The arrival-order cache: pages of lanes, growth, capacity, snapshots, entries taken back."""

from typing import Any

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import TOLERANCE, gap
from tests.models import save_tiny
from tests.two_groups import lane_input
from torch import Tensor

from proactivellm.core.layout import grouped
from proactivellm.forward import cache as cache_module
from proactivellm.forward.cache import PAGE, ArrivalCache
from proactivellm.forward.lanes import pack_lanes
from proactivellm.forward.pages import StoreFull
from proactivellm.forward.plan import make_plan
from proactivellm.policy.fixed import WaitK
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.session import Session

CPU = torch.device("cpu")
HEADS, WIDTH, LAYERS = 2, 3, 2
FULL: dict[str, int | None] = {"all": None}


def new_cache(num_lanes: int = 1, capacity: int | None = None) -> ArrivalCache:
    return ArrivalCache(LAYERS, num_lanes, CPU, capacity)


@torch.inference_mode()
def write(cache: ArrivalCache, tokens: dict[int, list[int]]) -> tuple[Tensor, Tensor]:
    """A step that writes tokens of lanes, whose keys are the tokens; returns the whole store.

    Tokens above 0 are source units of that number, 0 is a target token.
    """
    inputs = []
    for lane, units in tokens.items():
        read = [(unit, [unit]) for unit in units if unit]
        target = [0] * (len(units) - len(read))
        cache.reserve(lane, cache.lengths[lane] + len(units))
        inputs.append(lane_input(lane, read, target))
    new = pack_lanes(inputs, cache.lengths, grouped(), cache.reached)
    cache.begin(make_plan(cache.store(), new, grouped(), FULL, ("all",) * LAYERS))
    keys = torch.tensor(new.ids, dtype=torch.float32)[None, None, :, None]
    keys = keys.expand(1, HEADS, -1, WIDTH)
    for layer in range(LAYERS):
        all_keys, all_values = cache.update(keys + layer, layer - keys, layer)
    for lane, units in tokens.items():
        cache.lengths[lane] += len(units)
    return all_keys, all_values


def held(cache: ArrivalCache, lane: int) -> list[int]:
    """The tokens of a lane, as its keys, values and units all say."""
    snapshot = cache.snapshot(lane)
    for layer in range(LAYERS):
        keys, values = snapshot["keys"][layer], snapshot["values"][layer]
        assert keys.shape == values.shape == (cache.lengths[lane], HEADS, WIDTH)
        assert torch.equal(keys - layer, layer - values)
        assert (keys == keys[:, :1, :1]).all()
        assert (keys[:, 0, 0] - layer).tolist() == snapshot["kinds"][2].tolist()
    return snapshot["kinds"][2].tolist()


def check_pages(cache: ArrivalCache) -> None:
    """No page is lost, none has two owners, and each lane has as many as it needs."""
    taken = [page for pages in cache.pages for page in pages]
    assert len(set(taken)) == len(taken) == cache.pool.num_pages - cache.pool.num_free
    for lane, pages in enumerate(cache.pages):
        assert cache.lengths[lane] <= len(pages) * PAGE
        assert cache.page_table[lane, : len(pages)].tolist() == pages
        assert cache.contiguous[lane] == (
            pages == list(range(pages[0], pages[0] + len(pages))) if pages else True
        )


def test_entries_stand_in_order_of_arrival_and_are_overwritten_when_taken_back() -> None:
    cache = new_cache()
    write(cache, {0: [1, 1, 0]})
    cache.lengths[0] = 2  # the target token was a probe
    keys, values = write(cache, {0: [2, 0]})
    assert held(cache, 0) == [1, 1, 2, 0]
    assert cache.kinds[0, :4].tolist() == [0, 0, 0, 1]
    assert cache.get_seq_length() == 4
    assert keys.shape == values.shape == (1, HEADS, cache.num_entries, WIDTH)
    assert (keys[0, 0, :4, 0] - 1).tolist() == [1, 1, 2, 0]


def test_lanes_share_the_store_and_do_not_mix() -> None:
    cache = new_cache(3)
    write(cache, {0: [1, 2], 1: [3, 4], 2: [5, 6]})
    write(cache, {1: [7]})
    write(cache, {2: [8] * PAGE, 0: [9]})
    assert [held(cache, lane) for lane in range(3)] == [[1, 2, 9], [3, 4, 7], [5, 6, *[8] * PAGE]]
    assert [len(pages) for pages in cache.pages] == [-(-n // PAGE) for n in (3, 3, PAGE + 2)]
    check_pages(cache)


def test_a_lane_alone_stays_in_one_run_of_pages() -> None:
    cache = new_cache()
    for length in range(1, 20 * PAGE, 5):
        cache.reserve(0, length)
    assert cache.contiguous[0]
    cache.clear(0)
    write(cache, {0: [1] * 3 * PAGE})
    assert cache.contiguous[0] and cache.pages[0] == [0, 1, 2]
    check_pages(cache)


def test_a_lane_between_others_is_scattered_and_whole_again_when_it_begins_anew() -> None:
    cache = new_cache(2)
    for unit in range(1, 4):
        write(cache, {0: [unit] * PAGE, 1: [9] * PAGE})
    assert cache.contiguous == [False, False]
    assert held(cache, 0) == [1] * PAGE + [2] * PAGE + [3] * PAGE
    check_pages(cache)
    cache.clear(0)
    cache.clear(1)
    assert cache.contiguous == [True, True] and cache.pool.num_free == cache.pool.num_pages
    write(cache, {1: [5] * 3 * PAGE})
    assert cache.contiguous[1] and held(cache, 1) == [5] * 3 * PAGE


@pytest.mark.parametrize(("growth", "grown"), [(8, 72), (1, 128)])
def test_a_full_store_grows_by_one_part_in_so_many(growth: int, grown: int) -> None:
    cache = ArrivalCache(LAYERS, 1, CPU, growth=growth)
    cache.reserve(0, cache.num_entries + 1)
    assert cache.num_entries == grown


def test_growth_keeps_every_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    few = 2 * -(-3 // PAGE)
    monkeypatch.setattr(cache_module, "INITIAL_PAGES", few)
    cache = new_cache(2)
    write(cache, {0: [1, 2, 3], 1: [4, 5, 6]})
    assert cache.num_entries == few * PAGE
    write(cache, {1: [7] * PAGE})
    assert cache.num_entries == (few + 1) * PAGE, "no more than it takes"
    assert held(cache, 0) == [1, 2, 3] and held(cache, 1) == [4, 5, 6, *[7] * PAGE]
    write(cache, {0: [8] * 20 * PAGE})
    assert held(cache, 0) == [1, 2, 3, *[8] * 20 * PAGE]
    assert held(cache, 1) == [4, 5, 6, *[7] * PAGE]
    check_pages(cache)


def test_capacity_is_a_promise() -> None:
    with pytest.raises(ValueError, match=f"capacity={PAGE - 1}: give at least {PAGE} entries"):
        new_cache(capacity=PAGE - 1)
    cache = new_cache(2, capacity=5 * PAGE - 1)
    assert cache.num_entries == 4 * PAGE
    write(cache, {0: [1] * PAGE, 1: [2] * (2 * PAGE + 1)})
    buffers = [layer.keys.data_ptr() for layer in cache._layers()]
    with pytest.raises(StoreFull, match=f"needs 1 pages of {PAGE} entries and 0 of 4 are free"):
        cache.reserve(0, PAGE + 1)
    assert held(cache, 0) == [1] * PAGE, "what did not fit has changed nothing"
    check_pages(cache)
    cache.clear(1)
    write(cache, {0: [3] * 3 * PAGE})
    assert held(cache, 0) == [1] * PAGE + [3] * 3 * PAGE
    assert [layer.keys.data_ptr() for layer in cache._layers()] == buffers
    assert cache.missing_pages(0, 4 * PAGE + 1) == 1 == cache.missing_pages(1, 1)


def test_bytes_of_an_entry() -> None:
    cache = new_cache()
    assert cache.entry_bytes() == 0, "not known before the first step"
    write(cache, {0: [1]})
    assert cache.entry_bytes() == LAYERS * 2 * HEADS * WIDTH * 4


def test_a_snapshot_is_a_copy_that_fits_any_lane_of_any_cache() -> None:
    cache = new_cache(2)
    empty = cache.snapshot(0)
    write(cache, {0: [1, 2, 0], 1: [4] * 2 * PAGE})
    write(cache, {0: [3] * PAGE})  # scattered
    saved = cache.snapshot(0)
    before = held(cache, 0)
    cache.lengths[0] = 0
    write(cache, {0: [9, 9]})
    assert saved["kinds"][2].tolist() == before, "writing on does not change it"
    scattered = new_cache(3, capacity=9 * PAGE)
    for _ in range(2):
        write(scattered, {0: [1] * PAGE, 1: [2] * PAGE, 2: [3] * PAGE})
    scattered.clear(1)
    for target, lane in ((cache, 1), (new_cache(2), 1), (scattered, 1)):
        target.restore(lane, saved)
        assert held(target, lane) == before
        write(target, {lane: [7]})
        assert held(target, lane) == [*before, 7]
        assert target.units[lane] == saved["units"]
        check_pages(target)
    assert held(cache, 0) == [9, 9] and held(scattered, 2) == [3] * 2 * PAGE
    cache.restore(1, empty)
    assert cache.lengths[1] == 0 and cache.pages[1] == []
    write(cache, {1: [5]})
    assert held(cache, 1) == [5]


def test_a_snapshot_of_before_entries_knew_whether_they_lie_in_space() -> None:
    """Sessions and conversations that were saved have three kinds of each entry: they are text."""
    cache = new_cache()
    write(cache, {0: [1, 2]})
    saved = cache.snapshot(0)
    cache.kinds[3] = 1
    cache.restore(0, saved | {"kinds": saved["kinds"][:3]})
    assert cache.entry_kinds(0).tolist() == [*saved["kinds"][:3].tolist(), [0, 0]]


def test_a_snapshot_that_does_not_fit_is_refused() -> None:
    cache = new_cache(2, capacity=3 * PAGE)
    write(cache, {0: [1] * 2 * PAGE})
    saved = cache.snapshot(0)
    with pytest.raises(StoreFull):
        cache.restore(1, saved)
    assert held(cache, 0) == [1] * 2 * PAGE
    with pytest.raises(ValueError, match="the snapshot has 2 layers, the model 3"):
        ArrivalCache(3, 1, CPU).restore(0, saved)


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text"])
def test_memory_held_is_what_is_used_and_less_than_a_page_per_lane(
    tmp_path_factory: pytest.TempPathFactory, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a store that had to grow gives what one of ample size gives."""
    model = streams.load(save_tiny(family, tmp_path_factory.mktemp("m")), boundary="token")
    source = streams.as_units(streams.random_units(12, len(model.tokenizer), seed=1))
    expected = streams.feed(Session(model, WaitK(k=2)), source, 1).state
    logits = model.recorded(len(expected.delays))
    monkeypatch.setattr(cache_module, "INITIAL_PAGES", 1)
    engine = Engine(model, WaitK(k=2), Limits(streams=3))
    for lane in (engine.open(), engine.open(), engine.open()):
        engine.push(lane, source[: (5, 12, 1)[lane]])
    while engine.step() is not None:
        cache = engine.cache
        for lane in range(3):
            used = engine.state(lane).num_entries
            assert cache.lengths[lane] == used
            # The step's open tokens were entries too; a probe that is taken back keeps its page.
            fed = used + 1 + len(model.prompt.target_head)
            assert len(cache.pages[lane]) * PAGE < fed + PAGE
        check_pages(cache)
    assert engine.cache.pool.num_pages > 8
    assert engine.state(1).target == expected.target
    assert gap(model.recorded(len(expected.delays), lane=1), logits) <= TOLERANCE


def test_a_mask_is_never_asked_of_it() -> None:
    cache: Any = new_cache()
    with pytest.raises(NotImplementedError, match="a step brings its own masks"):
        cache.get_mask_sizes(2, 0)


def test_a_snapshot_of_other_shapes_is_refused_and_the_lane_kept() -> None:
    cache, other = new_cache(1), ArrivalCache(2, 1, torch.device("cpu"))
    write(cache, {0: [1, 2, 3]})
    write(other, {0: [4, 5]})
    snapshot = other.snapshot(0)
    snapshot["keys"] = [keys.repeat(1, 2, 1) for keys in snapshot["keys"]]
    with pytest.raises(ValueError, match="heads and width, the model of"):
        cache.restore(0, snapshot)
    assert held(cache, 0) == [1, 2, 3]
