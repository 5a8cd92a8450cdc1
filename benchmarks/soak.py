"""A server under many connections for a long time: nobody waits forever, and memory stays.

    python benchmarks/soak.py [--minutes 20] [--connections 200] [--lanes 32] [--model NAME]

Starts `proactivellm serve`, and has so many connections come, speak a sentence as fast as they can,
pause up to 20 seconds, and now and then leave in the middle. Ten rows: turns that ended, were left
and were refused, by what the server said, and the memory of the server. It fails (exit code 1) if a
connection had no turn, if anything but a full house was told, or if memory grew by more than 5 %
after the first quarter. `proactivellm bench serve` measures how many sessions are kept up with.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from proactivellm.bench.serving import Address, serving
from proactivellm.bench.workload import TEXT
from proactivellm.client import Client, ServerError

ROWS = 10
GROWTH = 1.05
GRACE_S = 60.0  # beyond the time, for those who had no turn yet
FULL = ("too_many_sessions", "too_many_streams")


@dataclass
class Soak:
    """So many connections for so many seconds, and what they met."""

    address: Address
    seconds: float
    connections: int
    pause_s: float = 20.0
    told: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)  # that ended, of each connection
    memory_mib: list[float] = field(default_factory=list)

    async def run(self, tell: Callable[[str], None]) -> None:
        """Tells a row ten times."""
        until_s = time.monotonic() + self.seconds
        all_of_them = (self._customer(i, until_s) for i in range(self.connections))
        customers = asyncio.gather(*all_of_them, return_exceptions=True)
        for row in range(1, ROWS + 1):
            await asyncio.sleep(until_s - self.seconds * (1 - row / ROWS) - time.monotonic())
            self.memory_mib.append(memory_mib(self.address.process))
            counts = ", ".join(f"{name} {count}" for name, count in sorted(self.told.items()))
            tell(f"| {self.seconds * row / ROWS:.0f} | {counts} | {self.memory_mib[-1]:.0f} |")
        for outcome in await customers:
            self.told.update([type(outcome).__name__] if outcome is not None else [])

    def faults(self) -> list[str]:
        """What should not be."""
        found = [f"{c}: {n}" for c, n in self.told.items() if c not in ("ended", "left", *FULL)]
        idle = self.connections - len(+self.turns)
        found += [f"{idle} connections had no turn"] if idle else []
        early, last = self.memory_mib[ROWS // 4], self.memory_mib[-1]
        return found + ([f"memory: {early:.0f} to {last:.0f} MiB"] if last > GROWTH * early else [])

    async def _customer(self, number: int, until_s: float) -> None:
        """One who connects again and again, and does not always wait for the end."""
        draw = random.Random(number)
        text = (files("proactivellm") / TEXT).read_text(encoding="utf-8").splitlines()
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + self.seconds + GRACE_S):
            while time.monotonic() < until_s or not self.turns[number]:
                try:
                    async with Client(self.address.url) as client:
                        while draw.random() < 0.8:
                            await self._turn(client, draw.choice(text), draw.random() < 0.1, number)
                            left_s = until_s - time.monotonic()
                            await asyncio.sleep(min(self.pause_s * draw.random(), max(0, left_s)))
                            if time.monotonic() > until_s:
                                break
                except ServerError as error:
                    self.told[error.code or str(error)] += 1
                    await asyncio.sleep(error.retry_after_s or 1.0)

    async def _turn(self, client: Client, sentence: str, leaves: bool, number: int) -> None:
        async for _ in client.stream(sentence.split(" ")):
            if leaves:
                break
        self.told["left" if leaves else "ended"] += 1
        self.turns[number] += not leaves


def memory_mib(process: int) -> float:
    """What a process has in memory now."""
    told = Path(f"/proc/{process}/statm").read_text().split()
    return int(told[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tatoeba-de-en")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--lanes", type=int, default=32)
    how = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends with it
    with serving(("--model", how.model), how.lanes, how.connections + 56) as address:
        soak = Soak(address, 60 * how.minutes, how.connections)
        print("| seconds | what clients met | memory of the server, MiB |\n|---:|---|---:|")
        asyncio.run(soak.run(lambda row: print(row, flush=True)))
    if faults := soak.faults():
        raise SystemExit("failed: " + "; ".join(faults))


if __name__ == "__main__":
    main()
