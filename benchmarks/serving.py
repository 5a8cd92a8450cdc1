"""How many live sessions a server keeps up with, over the network, in real time.

    python benchmarks/serving.py [--model NAME] [--policy SPEC] [--sessions 1,4,16] [--seconds 20]

Starts `proactivellm serve` and talks with it as our client does: each session speaks sentences of
the bundled German test set, one after the other, at --rate words a minute, sessions out of phase.
A row per number of sessions. The lag of a piece of text is the time from when the last word that it
was decided on was sent to when the piece arrived; that the policy waits for more words is not in
it. `CPU` is that of the server in cores; the clients run on the same machine.

    python benchmarks/serving.py --soak 20 [--connections 200]

has so many connections come, speak a sentence as fast as they can, pause up to 20 seconds, and now
and then leave in the middle, for so many minutes. A row a minute: turns that ended and that were
refused, by what the server said, and the memory of the server, which is to
stay.
"""

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

from proactivellm.client import Client, ServerError

TEXT = "assets/tatoeba-sample/test.de"
START_S = 120.0


@contextmanager
def serving(model: str, streams: int, sessions: int) -> Iterator[tuple[str, int]]:
    """A server of one model, until the context is left; its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "proactivellm", "serve", "--port", str(port)]
    command += ["--model", model, "--streams", str(streams), "--sessions", str(sessions)]
    command += ["--events-per-s", "1000"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _await(url, process)
            yield url, process.pid
        finally:
            process.terminate()


def _await(url: str, process: "subprocess.Popen[bytes]") -> None:
    began_s = time.monotonic()
    while True:
        if process.poll() is not None or time.monotonic() - began_s > START_S:
            raise SystemExit("error: the server did not start; run `proactivellm serve --check`")
        try:
            with urlopen(f"{url}/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.2)


async def speak(client: Client, sentence: str, word_s: float) -> list[float]:
    """The lags of all that is written for a sentence that is spoken at a pace, in seconds."""
    sent_s: list[float] = []

    async def words() -> AsyncIterator[str]:
        began_s = time.monotonic()
        for i, word in enumerate(sentence.split()):
            await asyncio.sleep(max(0.0, began_s + i * word_s - time.monotonic()))
            yield f"{word} "  # the white space says that the word is complete
            sent_s.append(time.monotonic())

    lags = []
    async for delta in client.stream(words()):
        read = min(max(delta.source_units, 1), len(sent_s))
        lags.append(time.monotonic() - sent_s[read - 1])
    return lags


async def session(url: str, how: argparse.Namespace, number: int, until_s: float) -> list[float]:
    """What one session meets until it is time to end."""
    rng = random.Random(number)
    text = (files("proactivellm") / TEXT).read_text(encoding="utf-8").splitlines()
    word_s = 60.0 / how.rate
    lags: list[float] = []
    await asyncio.sleep(rng.random() * word_s)
    async with Client(url, policy=how.policy) as client:
        while time.monotonic() < until_s:
            lags += await speak(client, rng.choice(text), word_s)
    return lags


def cpu_s(process: int) -> float:
    """Seconds of CPU that a process has taken; nan where /proc does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at(values: Sequence[float], share: float) -> float:
    """A percentile of what was measured."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


async def measure(url: str, process: int, how: argparse.Namespace, sessions: int) -> str:
    """A row of the table."""
    began_s, began_cpu_s = time.monotonic(), cpu_s(process)
    until_s = began_s + how.seconds
    met = await asyncio.gather(*(session(url, how, i, until_s) for i in range(sessions)))
    spent = (cpu_s(process) - began_cpu_s) / (time.monotonic() - began_s)
    lags = [1000 * lag for each in met for lag in each]
    shares = [at(lags, share) for share in (0.5, 0.95, 0.99)]
    kept = "yes" if shares[1] <= how.deadline else "no"
    cells = [f"{ms:,.0f}" for ms in shares]
    return " | ".join([str(sessions), str(len(lags)), *cells, f"{spent:.2f}", kept])


async def customer(url: str, how: argparse.Namespace, number: int, told: "Counter[str]") -> None:
    """One who connects again and again, and does not always wait for the end."""
    rng = random.Random(number)
    text = (files("proactivellm") / TEXT).read_text(encoding="utf-8").splitlines()
    until_s = time.monotonic() + 60 * how.soak
    while time.monotonic() < until_s:
        try:
            async with Client(url, policy=how.policy) as client:
                while time.monotonic() < until_s and rng.random() < 0.8:
                    deltas = 0
                    leaves = rng.random() < 0.1
                    async for _ in client.stream(rng.choice(text).split(" ")):
                        deltas += 1
                        if leaves:
                            break
                    told["left" if leaves else "ended"] += 1
                    await asyncio.sleep(20 * rng.random())
        except ServerError as error:
            told[error.code or str(error)] += 1
            await asyncio.sleep(error.retry_after_s or 1.0)


def memory_mib(process: int) -> float:
    """What a process has in memory now."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak(url: str, process: int, how: argparse.Namespace) -> None:
    """Prints a row a minute."""
    told: Counter[str] = Counter()
    customers = [asyncio.create_task(customer(url, how, i, told)) for i in range(how.connections)]
    for minute in range(1, round(how.soak) + 1):
        await asyncio.sleep(60)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(told.items()))
        print(f"| {minute} | {counts} | {memory_mib(process):.0f} |", flush=True)
    await asyncio.gather(*customers)
    print(f"| end | turns: {told.total()} | {memory_mib(process):.0f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tatoeba-de-en")
    parser.add_argument("--policy", help="default: that of the model")
    parser.add_argument("--sessions", default="1,4,16,64")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=150.0, help="words a minute")
    parser.add_argument("--deadline", type=float, default=300.0, help="milliseconds")
    parser.add_argument("--soak", type=float, default=0.0, help="minutes; instead of the table")
    parser.add_argument("--connections", type=int, default=200)
    how = parser.parse_args(arguments)
    if how.soak:
        print(
            "| minute | what clients met | memory of the server, MiB |\n|---:|---|---:|", flush=True
        )
        with serving(how.model, 32, how.connections + 56) as (url, process):
            asyncio.run(soak(url, process, how))
        return
    numbers = [int(number) for number in how.sessions.split(",")]
    print(f"| sessions | pieces | p50 ms | p95 ms | p99 ms | CPU | p95 <= {how.deadline:g} ms |")
    print("|" + "---:|" * 7)
    with serving(how.model, max(numbers), 2 * max(numbers)) as (url, process):
        for number in numbers:
            print(f"| {asyncio.run(measure(url, process, how, number))} |", flush=True)


if __name__ == "__main__":
    main()
