"""What `score` and `compare` cost on a large log: seconds and memory of the command itself.

    python benchmarks/score_scale.py [INSTANCES]

Makes two seeded logs of about 13 words an instance in a temporary folder, runs each command in a
process of its own, intervals included, and prints wall-clock and processor seconds and the most
memory the process held.
"""

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from proactivellm.output.log import Instance, write_instance

NUM_INSTANCES = 100_000
VOCABULARY = 20_000
PROGRAM = [sys.executable, "-c", "from proactivellm.cli import main; main()"]


def main(num_instances: int) -> None:
    """Prints what the commands cost on logs of so many instances."""
    with tempfile.TemporaryDirectory() as folder:
        logs = []
        for name, share_right in (("wait-k:3", 0.6), ("wait-k:5", 0.7)):
            logs.append(Path(folder) / f"{name}.log")
            make_log(logs[-1], name, num_instances, share_right)
        print(f"{num_instances} instances, {logs[0].stat().st_size / 1e6:.0f} MB a log")
        for command in (["score", str(logs[0])], ["compare", *map(str, logs)]):
            run(command)


def make_log(path: Path, policy: str, num_instances: int, share_right: float) -> None:
    """Writes a log whose targets are random words, a share of them those of the reference.

    `policy` is the spec "wait-k:K".
    """
    texts, lags = random.Random(0), random.Random(policy)  # the same references in every log
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(texts.choices(letters, k=texts.randint(2, 9))) for _ in range(VOCABULARY)]
    k = int(policy.rpartition(":")[2])
    with path.open("w", encoding="utf-8", buffering=1 << 20) as file:
        for index in range(num_instances):
            source = texts.choices(words, k=texts.randint(8, 18))
            reference = texts.choices(words, k=texts.randint(8, 18))
            prediction = [
                w if lags.random() < share_right else lags.choice(words) for w in reference
            ]
            delays = [min(k + i, len(source)) for i in range(len(prediction))]
            elapsed = [round(400.0 * d + 40.0 * lags.random(), 3) for d in delays]
            instance = Instance(
                index=index,
                source=" ".join(source),
                source_length=len(source),
                prediction=" ".join(prediction) + ".",
                prediction_length=len(prediction),
                reference=" ".join(reference) + ".",
                delays=delays,
                elapsed=elapsed,
                token_delays=[*delays, len(source)],
                policy=policy,
                forwards=len(source) + len(prediction),
                tokens=len(source) + len(prediction),
                first_token_ms=elapsed[0],
                source_ms=400.0 * len(source),
            )
            write_instance(file, instance)


def run(command: Sequence[str]) -> None:
    """Runs a command of the command line and prints what it cost."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([*PROGRAM, *command], capture_output=True, text=True, env=environment)
    wall_s = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        raise SystemExit(done.stderr)
    print(done.stdout)
    # The largest of all children so far: commands run from the smallest to the largest.
    print(f"{command[0]}: {wall_s:.1f} s, processor {used_s:.1f} s, {after.ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_INSTANCES)
