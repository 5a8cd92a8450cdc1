"""Stages that overlap: order, back-pressure, errors, and the rate of the slowest one."""

import threading
import time

import numpy as np
import pytest

from proactivellm.modality.stages import Pipeline, Stage


def passing(item):
    return item


def test_items_come_in_order_and_once():
    items = [np.arange(3), None, *range(50)]
    found = list(Pipeline([Stage("a", passing), Stage("b", lambda item: [item])]).run(items))
    assert [item for (item,) in found][1:] == items[1:] and found[0][0] is items[0]
    assert list(Pipeline([Stage("a", passing)]).run([])) == []


def test_a_slow_stage_holds_the_source_back():
    taken, go = [], threading.Semaphore(0)

    def source():
        for number in range(100):
            taken.append(number)
            yield number

    def slow(item):
        go.acquire()
        return item

    running = Pipeline([Stage("a", passing), Stage("slow", slow)], depth=2).run(source())
    go.release()
    assert next(running) == 0
    time.sleep(0.05)
    # In the hands of the three threads, and two before each stage.
    assert len(taken) <= 1 + 3 + 2 * 2
    for _ in range(100):
        go.release()
    assert len(list(running)) == 99


@pytest.mark.parametrize("where", ["source", "a", "b"])
def test_what_a_stage_raises_comes_out_after_what_was_before_it(where):
    def failing(name):
        def work(item):
            if name == where and item == 3:
                raise ValueError(f"{name} cannot")
            return item

        return work

    first, threads = failing("source"), threading.active_count()
    stages = [Stage("a", failing("a")), Stage("b", failing("b"))]
    running, found = Pipeline(stages).run(map(first, range(100))), []
    with pytest.raises(ValueError, match=f"{where} cannot"):
        for item in running:
            found.append(item)
    assert threading.active_count() == threads


def test_left_early():
    threads = threading.active_count()
    running = Pipeline([Stage("a", passing)]).run(iter(int, 1))  # without end
    assert next(running) == 0
    running.close()
    assert threading.active_count() == threads


def test_it_is_as_fast_as_its_slowest_stage():
    """Work of known length that overlaps: 4, 20, 12 and 16 ms; one after another takes 52."""

    def measured():
        times = {"slow": 0.020, "quick": 0.012, "middling": 0.016}
        stages = [Stage(name, lambda _, s=s: time.sleep(s)) for name, s in times.items()]
        pipeline, ends = Pipeline(stages), []

        def source():
            for number in range(20):
                time.sleep(0.004)
                yield number

        for _ in pipeline.run(source()):
            ends.append(time.perf_counter())
        assert pipeline.bottleneck == "slow"
        slowest = max(spent.busy_s / spent.items for spent in pipeline.spent)
        return (len(ends) - 1) / (ends[-1] - ends[0]) * slowest

    # A machine with other work may be late to wake a thread; what does not overlap never gets here.
    assert any(measured() >= 0.9 for _ in range(5))


def test_what_cannot_be():
    with pytest.raises(ValueError, match="0 stages"):
        Pipeline([])
