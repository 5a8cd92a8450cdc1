"""Draw the read/write path of one instance: read_write_path.py LOG INDEX OUT.png."""

import sys
from pathlib import Path

from proactivellm import read_log
from proactivellm.report.path import Heading, read_write_path


def main(log: str, index: str, out: str) -> Path:
    """Draw the staircase of an instance of a log.

    Args:
        log: instance log.
        index: which instance.
        out: PNG to write.

    Returns:
        The picture's path.
    """
    instance = next(i for i in read_log(log) if i.index == int(index))
    path = Path(out)
    words = instance.prediction.split()
    heading = Heading(title=instance.policy)
    read_write_path(instance.source.split(), words, instance.delays, path, heading)
    return path


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
