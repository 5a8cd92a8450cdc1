"""A calibration table that grows policy by policy: what is measured is kept, whatever comes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from proactivellm.evaluation.calibrate import prototype
from proactivellm.evaluation.evaluate import with_replays
from proactivellm.files.lock import locked
from proactivellm.policy.calibration import Calibration, CalibrationPoint
from proactivellm.report.progress import Progress
from proactivellm.stream import Job


def calibrate_into(
    file: Path,
    measure: Callable[..., Calibration],
    jobs: Sequence[Job],
    policies: Sequence[str],
    progress: Progress,
) -> list[CalibrationPoint]:
    """Measures policies, saves the table after each, and returns the points measured.

    Args:
        file: the table; policies that it has already are replaced, others stay.
        measure: `calibrate`, with model, grid and other settings bound to it.
        policies: as `calibrate` takes them, all checked before anything is measured.
        progress: called after every source, with the policy's name.

    Raises:
        ValueError: as `calibrate`; or the file is no table, or another process writes to its
            folder.
    """
    groups: dict[str, list[str]] = {}
    for text in policies:  # those of one name replace each other, so that they go together
        groups.setdefault(prototype(text).name, []).append(text)
    jobs, measured = with_replays(jobs), list[CalibrationPoint]()
    with locked(file.parent):
        # Read under the lock: another process may have added policies a moment ago.
        before = Calibration.load(file) if file.exists() else None
        for name, texts in groups.items():

            def told(_: str, done: int, total: int, name: str = name) -> None:
                progress(name, done, total)

            table = measure(jobs, texts, progress=told)
            before = before.merged(table) if before else table
            before.save(file)
            measured += table.points
    return measured
