"""The arrival-order cache: slots, growth, snapshots, entries taken back."""

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import TOLERANCE, gap
from tests.models import save_tiny
from torch import Tensor

from proactivellm.model import cache as cache_module
from proactivellm.model.cache import ArrivalCache, Entries
from proactivellm.policy.fixed import WaitK
from proactivellm.session.batch import Batch
from proactivellm.session.session import Session

CPU = torch.device("cpu")
HEADS, WIDTH = 2, 3


def entries(*unit: list[int]) -> Entries:
    units = torch.tensor(unit)
    return Entries(group=(units == 0).long(), position=10 * units, unit=units)


def write(cache: ArrivalCache, lanes: list[int], units: list[list[int]]) -> tuple[Entries, Tensor]:
    """A step of new tokens whose keys are their unit numbers; returns all entries, all keys."""
    first = torch.tensor([[cache.lengths[lane]] for lane in lanes])
    slots = first + torch.arange(len(units[0]))
    shown = cache.begin_step(torch.tensor(lanes), slots, entries(*units))
    keys = torch.tensor(units, dtype=torch.float32)[:, None, :, None]
    keys = keys.expand(-1, HEADS, -1, WIDTH)
    for layer in (0, 1):
        all_keys, all_values = cache.update(keys + layer, -keys, layer)
        assert torch.equal(all_values, layer - all_keys)
    for lane, row in zip(lanes, units, strict=True):
        cache.lengths[lane] += len(row)
    return shown, all_keys[:, 0, :, 0] - 1


def test_entries_stand_in_order_of_arrival_and_are_overwritten_when_taken_back() -> None:
    cache = ArrivalCache(2, 1, CPU)
    write(cache, [0], [[1, 1, 0]])
    cache.lengths[0] = 2  # the target token was a probe
    shown, keys = write(cache, [0], [[2, 0]])
    assert shown.unit.tolist() == [[1, 1, 2, 0]] == keys.tolist()
    assert shown.position.tolist() == [[10, 10, 20, 0]]
    assert shown.group.tolist() == [[0, 0, 0, 1]]
    assert cache.get_seq_length() == 4
    assert cache.get_mask_sizes(2, 0) == (4, 0)


def test_lanes_of_other_lengths_do_not_mix() -> None:
    cache = ArrivalCache(2, 3, CPU)
    write(cache, [0, 1, 2], [[1, 2], [3, 4], [5, 6]])
    write(cache, [1], [[7]])
    shown, keys = write(cache, [2, 0], [[8], [9]])
    assert [row[:3] for row in shown.unit.tolist()] == [[5, 6, 8], [1, 2, 9]] == keys.tolist()
    assert cache.lengths == [3, 3, 3]


def test_growth_keeps_every_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "INITIAL_CAPACITY", 4)
    cache = ArrivalCache(2, 2, CPU)
    write(cache, [0, 1], [[1, 2, 3], [4, 5, 6]])
    assert cache.capacity == 4
    shown, keys = write(cache, [1], [[7, 8, 9]])
    assert cache.capacity == 8 and shown.unit.tolist() == keys.tolist() == [[4, 5, 6, 7, 8, 9]]
    _, keys = write(cache, [0], [[1]])
    assert keys[:, :4].tolist() == [[1, 2, 3, 1]]
    write(cache, [0], [list(range(1, 31))])
    assert cache.capacity == 34, "a step longer than twice the capacity gets what it needs"
    assert cache.snapshot(1)["entries"][2].tolist() == [4, 5, 6, 7, 8, 9]


def test_a_snapshot_is_a_copy_that_fits_any_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "INITIAL_CAPACITY", 2)
    cache = ArrivalCache(2, 2, CPU)
    empty = cache.snapshot(0)
    write(cache, [0, 1], [[1, 2, 0], [4, 5, 6]])
    saved = cache.snapshot(0)
    assert [keys.shape for keys in saved["keys"]] == [(HEADS, 3, WIDTH)] * 2
    write(cache, [0], [[7]])
    cache.lengths[0] = 0
    write(cache, [0], [[9, 9]])
    assert saved["entries"][2].tolist() == [1, 2, 0]
    for target in (cache, ArrivalCache(2, 2, CPU)):
        target.restore(1, saved)
        shown, keys = write(target, [1], [[3]])
        assert shown.unit.tolist() == keys.tolist() == [[1, 2, 0, 3]]
    assert cache.snapshot(0)["entries"][2].tolist() == [9, 9]
    cache.restore(1, empty)
    assert cache.lengths[1] == 0 and write(cache, [1], [[5]])[1].tolist() == [[5]]
    with pytest.raises(ValueError, match="the snapshot has 2 layers, the model 3"):
        ArrivalCache(3, 1, CPU).restore(0, saved)


def test_a_stream_longer_than_the_capacity_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = streams.load(save_tiny("gemma3_text", tmp_path_factory.mktemp("m")), boundary="token")
    source = streams.as_units(streams.random_units(12, len(model.tokenizer), seed=1))
    expected = streams.feed(Session(model, WaitK(k=2)), source, 1).state
    logits = model.recorded(len(expected.delays))
    monkeypatch.setattr(cache_module, "INITIAL_CAPACITY", 3)
    batch = Batch(model, WaitK(k=2), num_lanes=2)
    for lane in (batch.open(), batch.open()):
        batch.push(lane, source[: len(source) if lane else 5])
    while batch.step() is not None:
        pass
    assert batch.cache.capacity > 3 * 4
    assert batch.state(1).target == expected.target
    assert gap(model.recorded(len(expected.delays), lane=1), logits) <= TOLERANCE
