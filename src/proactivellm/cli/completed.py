"""Sources that are streamed at once: each is shown and logged when it is complete, by its name."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from proactivellm.cli.display import NamedTargets
from proactivellm.cli.one_by_one import summarize
from proactivellm.cli.stopping import Stops
from proactivellm.files.growing import open_lines
from proactivellm.output.log import Instance, write_instance
from proactivellm.stream import Streams


def tell_completed(
    completed: Iterable[tuple[str, Instance]],
    streams: Streams,
    failed: Sequence[str],
    log: Path | None,
    stops: Stops,
) -> bool:
    """Shows and logs what is complete, in that order, and sums up.

    Args:
        completed: names and instances, made while this iterates.
        streams: in which they are made.
        failed: what is to be told at the end; filled meanwhile.
        log: instance log to write.
        stops: whether the user wants an end; what was told until then is kept.

    Returns:
        Whether it came to the end, and was not interrupted.

    Raises:
        ValueError: at the end, with what failed.
    """
    display, done = NamedTargets(), list[Instance]()
    with open_lines(log) as file, stops.noting():
        for name, instance in completed:
            done.append(instance)
            display.show(name, instance)
            if file:
                write_instance(file, instance)
    display.summary(summarize(done, steps=streams.engine.forwards))
    if failed:
        raise ValueError("\n".join(failed))
    return not stops.came
