"""Coroutines push and iterate; one thread steps: each stream writes what it writes alone."""

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models import save_tiny

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import parse_policy
from proactivellm.session.events import Ending
from proactivellm.session.limits import EngineFull, Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import AsyncStream, Streams, Worker, stream_text

SOURCES = [
    "the dog sleeps on a sofa",
    "one two three",
    "",
    "a man in a hat looks at the window and sleeps",
    "dog",
    "the window the window the window",
]
POLICY = parse_policy("wait-k:2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingCausalLM:
    model = load(save_tiny("qwen3", tmp_path_factory.mktemp("tiny")))
    model.model.generation_config.max_new_tokens = 16  # a random model ends no target by itself
    return model


def streams(model: StreamingCausalLM, **limits: Any) -> Streams:
    return Streams(model, POLICY, Limits(**{"streams": len(SOURCES), **limits}), Sampling())


def alone(model: StreamingCausalLM, source: str) -> str:
    events = stream_text(model, POLICY, source, sampling=Sampling())
    return "".join(event.text for event in events if event.kind == "WRITE")


async def text_of(stream: AsyncStream) -> str:
    return "".join([event.text async for event in stream if event.kind == "WRITE"])


async def push(stream: AsyncStream, source: str, size: int) -> None:
    for start in range(0, len(source), size):
        await stream.push(source[start : start + size])
        await asyncio.sleep(0)
    await stream.close()


@pytest.mark.parametrize("pending", [None, 1])
def test_each_writes_what_it_writes_alone(model: StreamingCausalLM, pending: int | None) -> None:
    async def one(worker: Worker, source: str, size: int) -> str:
        async with await worker.open() as stream:
            text, _ = await asyncio.gather(text_of(stream), push(stream, source, size))
        assert stream.instance().prediction == text
        assert stream.instance().source == source
        return text

    async def many() -> list[str]:
        async with Worker(streams(model, pending=pending)) as worker:
            tasks = [one(worker, source, size) for size, source in enumerate(SOURCES, start=1)]
            return await asyncio.gather(*tasks)

    assert asyncio.run(many()) == [alone(model, source) for source in SOURCES]


def test_one_that_goes_wrong_or_is_cancelled_leaves_the_others(model: StreamingCausalLM) -> None:
    async def run() -> None:
        async with Worker(streams(model)) as worker:
            good, bad, left = [await worker.open() for _ in range(3)]
            await bad.push([Unit("x", token_ids=(10**6,))])
            await left.push("the dog sleeps ")
            pushing = asyncio.create_task(push(good, SOURCES[0], 4))
            with pytest.raises(ValueError, match="token id 1000000 is none"):
                await text_of(bad)
            with pytest.raises(ValueError, match="token id 1000000 is none"):
                await bad.push("more")
            async with left:
                pass
            kinds = [event.kind async for event in left]
            assert kinds[-1] == "END" and left.stream.ended
            assert await text_of(good) == alone(model, SOURCES[0])
            await pushing
            with pytest.raises(EngineFull):
                for _ in range(9):
                    await worker.open()

    asyncio.run(run())


def test_the_event_loop_is_not_held_up(
    model: StreamingCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, threads = threading.Event(), set()
    slow = streams(model)
    step = slow.engine.step

    def waiting_step() -> Any:
        threads.add(threading.current_thread().name)
        assert goes_on.wait(60)
        return step()

    monkeypatch.setattr(slow.engine, "step", waiting_step)

    async def run() -> str:
        async with Worker(slow) as worker:
            opening = asyncio.create_task(worker.open())
            await asyncio.sleep(0)  # the loop goes on while the first step does not
            goes_on.set()
            stream = await opening
            await push(stream, SOURCES[1], 3)
            return await text_of(stream)

    assert asyncio.run(run()) == alone(model, SOURCES[1])
    assert threads == {"streams"}


def test_a_step_that_fails_for_all_is_told_to_all(
    model: StreamingCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = streams(model)
    step = failing.engine.step

    def no_memory() -> Any:
        monkeypatch.setattr(failing.engine, "step", step)
        raise torch.OutOfMemoryError("no memory")

    async def run() -> None:
        async with Worker(failing) as worker:
            opened = [await worker.open() for _ in range(2)]
            await worker.ask(lambda: monkeypatch.setattr(failing.engine, "step", no_memory))
            for stream in opened:
                with pytest.raises(torch.OutOfMemoryError):
                    await text_of(stream)
            again = await worker.open()  # the worker lives on
            await push(again, SOURCES[1], 99)
            assert await text_of(again) == alone(model, SOURCES[1])

    asyncio.run(run())


def test_closing_ends_what_is_open(model: StreamingCausalLM, tmp_path: Path) -> None:
    others = {*threading.enumerate()}  # of servers of other tests

    async def run() -> None:
        worker = Worker(streams(model))
        stream = await worker.open()
        await stream.push(SOURCES[0])
        await worker.close()
        await worker.close()
        assert [event.kind async for event in stream][-1] == "END"
        for call in (stream.push("x"), stream.close(), worker.open()):
            with pytest.raises(RuntimeError, match="the worker is closed"):
                await call

    asyncio.run(run())
    left = {*threading.enumerate()} - others
    assert not any(thread.name == "streams" for thread in left)


def test_whoever_is_cancelled_leaves_nothing_behind(model: StreamingCausalLM) -> None:
    async def run() -> None:
        async with Worker(streams(model, streams=1, pending=1)) as worker:
            opening = asyncio.create_task(worker.open())
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            async with await worker.open() as stream:  # its lane is free
                work = asyncio.create_task(push(stream, SOURCES[3], 4))
                await asyncio.sleep(0.01)
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
            assert [event.kind async for event in stream][-1:] in ([], ["END"])
            last = await worker.open()
            await push(last, SOURCES[1], 99)
            assert await text_of(last) == alone(model, SOURCES[1])

    asyncio.run(run())


def test_a_loop_that_is_gone_frees_its_streams(model: StreamingCausalLM) -> None:
    worker = Worker(streams(model, streams=1))

    async def leave() -> None:
        stream = await worker.open()
        await stream.push(SOURCES[0])

    async def come() -> str:
        stream = await worker.open()
        await push(stream, SOURCES[1], 99)
        text = await text_of(stream)
        await worker.close()
        return text

    asyncio.run(leave())
    assert asyncio.run(come()) == alone(model, SOURCES[1])


def test_who_waits_for_a_worker_that_dies_is_told(
    model: StreamingCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        worker = Worker(streams(model))
        stream = await worker.open()
        await stream.push("the dog sleeps")
        never = asyncio.create_task(worker.ask(lambda: None, when=lambda: False))
        await asyncio.sleep(0)
        monkeypatch.setattr(worker, "_tell_all", lambda: 1 / 0)
        with suppress(RuntimeError):  # it may be dead already
            await stream.push(" on a sofa")
        with pytest.raises(ZeroDivisionError):
            await text_of(stream)
        with pytest.raises(RuntimeError, match="the worker is closed"):
            await never
        with pytest.raises(RuntimeError, match="the worker is closed") as raised:
            await worker.open()
        assert raised.value.__cause__ is worker.error
        await worker.close()

    asyncio.run(run())


def test_a_watched_stream_tells_what_decided_and_how_far_behind_it_is(
    model: StreamingCausalLM,
) -> None:
    policy = parse_policy("entropy:threshold=9,min_lag=1")

    async def run() -> None:
        async with Worker(streams(model)) as worker:
            options = {"policy": policy, "watch": policy.evidence}
            async with await worker.open(**options) as stream:
                await stream.push("the dog sleeps on a sofa " * 9)
                await stream.close()
                events = [event async for event in stream]
        end, writes = events[-1], [event for event in events if event.kind == "WRITE"]
        assert (end.kind, end.ending, end.tokens) == ("END", Ending.LENGTH_LIMIT, 16)
        decided = [event for event in writes if event.reason is Reason.WRITE_RULE]
        assert decided and all(0 < (event.evidence or 0) < 9 for event in decided)
        assert all(event.lag_s is not None and event.lag_s >= 0 for event in writes)

    asyncio.run(run())
