"""A folder is one process's; a killed one leaves no lock behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proactivellm.files.lock import locked

HOLDS = """
import sys, time
from proactivellm.files.lock import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"locked\n"
        with pytest.raises(ValueError, match="is in use: .* or choose another --out") as raised:
            with locked(folder):
                pass
        assert str(raised.value).startswith(str(folder))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(folder), pytest.raises(ValueError, match="is in use"):
        with locked(folder):  # nor twice in one process
            pass
    with locked(folder):
        pass
