"""The instance log: JSON lines, one per source, the only thing between running and scoring.

The names of SimulEval's `instances.log` are kept, so its `--score-only` and `omnisteval shortform`
read the file as it is; what is added to them is ignored by both. Its logs are read here, and
simulstream's (`output.foreign`).
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import TypeAdapter, ValidationError

from proactivellm.files.replace import naming
from proactivellm.output.foreign import from_simuleval, from_simulstream, tool_of

VERSION = 1
LOG_FILE = "instances.log"  # the name SimulEval looks for
Task = Literal["translation", "qa", "asr"]
SourceType = Literal["text", "speech"]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One source, what was written for it, and when.

    Attributes:
        version: format of the log; 1.
        index: place of the source in its file, from 0.
        source: the source text; of speech, the recording.
        source_length: source units in the stream; of speech, its duration in ms.
        prediction: the whole target text; its words are what `str.split()` gives.
        prediction_length: words of the prediction.
        reference: the wanted target; None if there is none (SimulEval then scores latency against
            the length of the prediction, as is done here).
        delays: for each target word, source units read when it was written; of speech, ms of audio:
            the end of the last unit read, `source_length` once the end of the source was read.
        elapsed: for each target word, ms from the start of the stream until it was written, on a
            clock where listening (at a stated arrival rate) and computing overlap.
        token_delays: the schedule g: for each target token, the end-of-stream token included,
            source units read when it was predicted; ms of audio, likewise, of speech.
        policy: canonical spec of the policy.
        forwards: forward passes of the model; None if not recorded.
        tokens: tokens that went through the model; None if not recorded.
        first_token_ms: ms from the start of the stream until the first target token; None if there
            was none.
        source_ms: ms until the whole source has arrived, on the clock of `elapsed`; None if not
            recorded.
        dropped_units: source units that had left the window at the end.
        dropped_tokens: target tokens that had left the window at the end.
        revisions: every text that was shown, oldest first, for policies that take words back.
        task: "translation"; "qa": the prediction answers a question about the source; "asr": it is
            a transcript.
        answers: every accepted answer of a "qa" instance; None stands for the reference alone.
        source_type: "text" or "speech"; the unit of `source_length`, `delays` and `token_delays`.
        compute_ms: time spent in computing (encoder and model); None if not recorded.

    Raises:
        ValueError: the version is not supported, or delays, elapsed times and words differ in
            number.
    """

    version: int = VERSION
    index: int
    source: str
    source_length: int | float
    prediction: str
    prediction_length: int
    reference: str | None = None
    delays: Sequence[int | float]
    elapsed: Sequence[float]
    token_delays: Sequence[int | float]
    policy: str
    forwards: int | None
    tokens: int | None
    first_token_ms: float | None = None
    source_ms: float | None = None
    dropped_units: int = 0
    dropped_tokens: int = 0
    revisions: list[str] | None = None
    task: Task = "translation"
    answers: list[str] | None = None
    source_type: SourceType = "text"
    compute_ms: float | None = None

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(
                f"log version {self.version} is not supported (supported: {VERSION}); "
                "score it with the release that wrote it"
            )
        counts = {
            "prediction_length": self.prediction_length,
            "delays": len(self.delays),
            "elapsed": len(self.elapsed),
            "words in the prediction": len(self.prediction.split()),
        }
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name}: {count}" for name, count in counts.items())
            raise ValueError(
                f"the numbers of target words disagree ({found}); each word, as str.split() counts "
                "them, needs one delay and one elapsed time"
            )


_INSTANCE = TypeAdapter(Instance)
_LEFT_OUT = {
    field.name: field.default
    for field in fields(Instance)
    if field.name not in ("version", "reference") and field.default is not MISSING
}


def write_instance(file: TextIO, instance: Instance) -> None:
    """Appends one instance as one line and flushes it, so that an interruption loses at most it.

    Args:
        file: text file open for writing with `encoding="utf-8"`.
        instance: what to write. Optional fields that have their default (None, nothing dropped,
            translation, text) are left out, except the reference: SimulEval takes an absent one
            for a reference of one word.

    Raises:
        ValueError: a number is not finite.
        OSError: the disk is full, for example; names the file.
    """
    record = asdict(instance)
    for key, default in _LEFT_OUT.items():
        if record[key] == default:
            del record[key]
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    with naming(getattr(file, "name", "log")):
        file.write(line)
        file.flush()


def read_log(path: str | Path) -> list[Instance]:
    """Reads an instance log, or one of SimulEval or simulstream, whichever it is.

    What is taken from the logs of others, see `from_simuleval` and `from_simulstream`.

    Args:
        path: the log.

    Returns:
        The instances in the order of the file; blank lines are passed over.

    Raises:
        ValueError: no such file, or a line is of no known log, malformed, lacks a key, has another
            version, or repeats an index; names the file, the line and the remedy.
    """
    return _parse_lines(Path(path), _read_bytes(Path(path)))


def recover_log(path: str | Path) -> list[Instance]:
    """Makes the log of an interrupted run fit to be appended to.

    A last line that was cut off is removed from the file; a missing final newline is added.

    Args:
        path: the log; it need not exist.

    Returns:
        The instances that are complete, none if there is no such file.

    Raises:
        ValueError: as `read_log`, for whatever an interruption does not explain.
    """
    file = Path(path)
    if not file.exists():
        return []
    content = _read_bytes(file)
    kept, newline, tail = content.rpartition(b"\n")
    # Only the beginning of a record is removed: any other text is not ours to delete.
    cut_off = tail.startswith(b"{") and not _is_json(tail)
    instances = _parse_lines(file, kept if cut_off else content)
    if cut_off:
        os.truncate(file, len(kept) + len(newline))
    elif tail:
        with file.open("ab") as stream:
            stream.write(b"\n")
    return instances


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse_lines(path: Path, content: bytes) -> list[Instance]:
    lines = (
        (f"{path}: line {number}", line)
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    )
    instances = []
    place_of_index: dict[int, str] = {}
    for where, record in _records((where, _parse(line, where)) for where, line in lines):
        try:
            instance = _INSTANCE.validate_python(record)
        except ValidationError as error:
            raise ValueError(f"{where}: {_explain(error)}") from None
        first = place_of_index.setdefault(instance.index, where)
        if first != where:
            raise ValueError(
                f"{where}: index {instance.index} is already that of "
                f"{first.removeprefix(f'{path}: ')}; delete one of the two lines"
            )
        instances.append(instance)
    return instances


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{where}: not JSON ({error}); if the run was interrupted here, "
            "resume it or delete the line"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: an instance is a JSON object, found {str(record)[:40]!r}")
    return record


def _records(
    lines: Iterable[tuple[str, dict[str, Any]]],
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Our records, by the tool that wrote the first line."""
    lines = iter(lines)
    for where, first in lines:
        tool = tool_of(first)
        if tool is None:
            raise ValueError(
                f"{where}: neither an instance log (JSON lines with version, prediction, delays, "
                "...), nor SimulEval's instances.log (prediction, delays, elapsed, ...), nor a "
                f"metric log of simulstream (metadata, generated_tokens, ...): found {_keys(first)}"
            )
        lines = chain([(where, first)], lines)
        if tool == "simulstream":
            return from_simulstream(lines)
        return (
            (where, record if "version" in record else from_simuleval(record))
            for where, record in lines
        )
    return ()


def _keys(record: dict[str, Any]) -> str:
    return ", ".join(record)[:80] or "no keys"


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, with its remedy."""
    details = error.errors(include_url=False)
    missing = [str(detail["loc"][0]) for detail in details if detail["type"] == "missing"]
    if missing:
        return (
            f"missing {', '.join(missing)}; an instance log holds these in every line "
            "(it is what `evaluate` and SimulEval write)"
        )
    detail = details[0]
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    kinds = ("int", "float")  # of a number that may be either; no keys
    key = ".".join(str(part) for part in detail["loc"] if part not in kinds)
    return f"{key} = {str(detail['input'])[:40]!r}: {message[0].lower()}{message[1:]}"
