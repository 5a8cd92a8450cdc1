"""How long `proactivellm stream` takes to say something, and to write its first word.

    python benchmarks/startup.py [REPEATS]

Prints wall-clock and processor (user + sys) seconds from the start of the process on, the best of
REPEATS (3) runs by turns. Beside it, the time that plain transformers needs to import torch and
load the same model, and to write one token of it. Bytecode is written to a temporary folder, and a
first run that fills it is not counted.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from proactivellm.backbone.bundled import DEFAULT_MODEL, bundled_models

SOURCE = "Ich habe gestern einen alten Freund getroffen.\n"
STREAM = (sys.executable, "-m", "proactivellm", "stream", "--policy", "wait-k:3")
PLAIN = (
    sys.executable,
    "-c",
    "import sys\n"
    "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
    "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
    "tokens = tokenizer(sys.stdin.read(), return_tensors='pt')\n"
    "written = model.generate(**tokens, max_new_tokens=1)[0, -1:]\n"
    "print(tokenizer.decode(written), flush=True)",
    str(bundled_models()[DEFAULT_MODEL]),
)
Times = dict[str, tuple[float, float]]  # wall-clock and processor seconds by stream


def main(num_repeats: int) -> None:
    """Print one table."""
    rows: list[tuple[str, str, Sequence[str], list[tuple[float, float]]]] = [
        ("proactivellm stream, first message", "stderr", STREAM, []),
        ("proactivellm stream, first word", "stdout", STREAM, []),
        ("plain transformers, first token", "stdout", PLAIN, []),
    ]
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": folder}
        for number in range(num_repeats + 1):
            times = {command: run(command, environment) for command in (STREAM, PLAIN)}
            for _, place, command, found in rows if number else []:
                found.append(times[command][place])
    print(f"{'':36}{'wall s':>8}{'CPU s':>8}")
    for name, _, _, found in rows:
        wall_s, cpu_s = (min(column) for column in zip(*found, strict=True))
        print(f"{name:36}{wall_s:8.2f}{cpu_s:8.2f}")


def run(command: Sequence[str], environment: dict[str, str]) -> Times:
    """When a command first wrote to each of its streams."""
    started = time.perf_counter()
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(SOURCE.encode())
        process.stdin.close()
        times = {}
        for place in ("stderr", "stdout") if command is STREAM else ("stdout",):
            assert getattr(process, place).read(1), process.stderr.read().decode()
            times[place] = time.perf_counter() - started, _processor_s(process.pid)
        process.stdout.read()
        process.stderr.read()
    return times


def _processor_s(pid: int) -> float:
    """User and system seconds of a process so far (Linux)."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
