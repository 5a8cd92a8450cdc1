"""Logs of other tools as records of ours: SimulEval's `instances.log`, simulstream's metric log.

Both are JSON lines, told from ours and from each other by their keys. What a tool does not log is
None, or the nearest thing it has; times are ms.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

Record = dict[str, Any]
Tool = Literal["ours", "SimulEval", "simulstream"]
_UNKNOWN: Mapping[str, Any] = {"policy": "unknown", "forwards": None, "tokens": None}


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A line of simulstream's log that is not about a recording as a whole; times in s."""

    id: int | str
    total_audio_processed: float
    computation_time: float
    generated_tokens: list[str]
    deleted_tokens: list[str]


_CHUNK = TypeAdapter(_Chunk)


def tool_of(record: Mapping[str, Any]) -> Tool | None:
    """The tool that writes such lines.

    Args:
        record: a line of a log.

    Returns:
        Its name; None if it is none of those known.
    """
    if "version" in record:
        return "ours"
    if "metadata" in record or "generated_tokens" in record:
        return "simulstream"
    return "SimulEval" if {"prediction", "delays", "elapsed"} & record.keys() else None


def from_simuleval(record: Mapping[str, Any]) -> Record:
    """A line of SimulEval's `instances.log`.

    `index`, `prediction`, `prediction_length`, `delays`, `elapsed` and `source_length` are taken as
    they are: words read, or, of speech, ms of audio. The schedule g is taken from the words. A
    reference loses its line end. A source that is a list is either words, which are joined, or
    facts about a recording, of which the name is kept. Of speech alone the log tells when the
    source had arrived, `source_length`, and so has computation-aware latency, on SimulEval's clock:
    it counts computing and listening one after the other.

    Args:
        record: the line.

    Returns:
        Our record, not validated.
    """
    ours = dict(_UNKNOWN) | dict(record)
    if isinstance(record.get("reference"), str):
        ours["reference"] = record["reference"].rstrip("\r\n")
    source = record.get("source", "")
    is_speech = False
    if isinstance(source, list):
        is_speech = any(str(item).startswith("samplerate") for item in source)
        source = str(source[0]) if is_speech else " ".join(map(str, source))
    ours["source"] = source.rstrip("\r\n") if isinstance(source, str) else source
    if "delays" in record:
        ours.setdefault("token_delays", record["delays"])
    if is_speech:
        ours["source_type"] = "speech"
    if is_speech and "source_length" in record:
        ours.setdefault("source_ms", record["source_length"])
        elapsed = record.get("elapsed")
        if isinstance(elapsed, list) and elapsed:
            ours.setdefault("first_token_ms", elapsed[0])
    return ours


def from_simulstream(lines: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Record]]:
    """The lines of simulstream's metric log, of which each recording has several.

    A recording begins with `{"id", "metadata": {"wav_name"}}`; each chunk of it is
    `{"id", "total_audio_processed", "computation_time", "generated_tokens", "deleted_tokens"}`, in
    seconds. The source is `wav_name`; its length is the audio processed at the end, in ms. The
    delay of a word is the audio processed when it got its final form; elapsed is that and the
    computation of its chunk, as simulstream has it (a chunk that comes late does not delay the
    next). The time of computing is that of all chunks. Where tokens were deleted, the texts that
    were shown become `revisions`. There is no reference. Tokens become text as those of
    SentencePiece ("▁" begins a word), of byte-level BPE ("Ġ" does), or else as words, by the sign.

    Args:
        lines: place (file and line) and content of each line.

    Returns:
        Place of the first line and our record, not validated, of each recording in the order of
        the log.

    Raises:
        ValueError: a line lacks a key or has a wrong value, or deletes tokens that are not there;
            names the place.
    """
    recordings: dict[str, _Recording] = {}
    name_of: dict[str, str] = {}
    for where, line in lines:
        number = str(line.get("id"))
        if "metadata" in line:
            facts = line["metadata"]
            name = str(facts.get("wav_name", "")) if isinstance(facts, dict) else ""
            if name in recordings:
                raise ValueError(f"{where}: {name!r} was there before: keep one log for each run")
            recordings[name] = _Recording(where, [])
            name_of[number] = name
            continue
        chunk = _parse_chunk(line, where)
        if number not in name_of:
            raise ValueError(f"{where}: id {number} has no metadata before this line")
        recordings[name_of[number]].chunks.append((where, chunk))
    tokens = {
        t
        for each in recordings.values()
        for _, chunk in each.chunks
        for t in chunk.generated_tokens
    }
    join = _joiner(tokens)
    return [
        (each.where, each.record(join) | {"index": index, "source": name})
        for index, (name, each) in enumerate(recordings.items())
    ]


def _parse_chunk(line: Mapping[str, Any], where: str) -> _Chunk:
    try:
        return _CHUNK.validate_python(line)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        key = ".".join(map(str, detail["loc"]))
        raise ValueError(
            f"{where}: {key} in a log of simulstream: {detail['msg']}, found "
            f"{', '.join(line) if detail['type'] == 'missing' else str(detail['input'])[:40]!r}"
        ) from None


class _Recording(NamedTuple):
    """The chunks of one recording, each with its place in the log."""

    where: str
    chunks: list[tuple[str, _Chunk]]

    def record(self, join: Callable[[Sequence[str]], str]) -> Record:
        """Its record, but for what names it."""
        tokens: list[str] = []
        token_delays: list[float] = []
        words: list[str] = []
        times: list[tuple[float, float]] = []  # of each word: audio processed, elapsed
        texts: list[str] = []
        read_ms, is_revised = 0.0, False
        for where, chunk in self.chunks:
            read_ms = 1000.0 * chunk.total_audio_processed
            now = (read_ms, read_ms + 1000.0 * chunk.computation_time)
            if deleted := chunk.deleted_tokens:
                if tokens[-len(deleted) :] != deleted:
                    raise ValueError(f"{where}: deleted_tokens are not the last that were there")
                is_revised = True
                del tokens[-len(deleted) :], token_delays[-len(deleted) :]
                words = _update(words, join(tokens).split(), times, now)
            tokens += chunk.generated_tokens
            token_delays += [read_ms] * len(chunk.generated_tokens)
            texts.append(join(tokens))
            words = _update(words, texts[-1].split(), times, now)
        return {
            **_UNKNOWN,
            "source_length": read_ms,
            "prediction": texts[-1] if texts else "",
            "prediction_length": len(words),
            "reference": None,
            "delays": [delay for delay, _ in times],
            "elapsed": [elapsed for _, elapsed in times],
            "token_delays": token_delays,
            "first_token_ms": times[0][1] if times else None,
            "source_ms": read_ms,
            "revisions": texts if is_revised else None,
            "source_type": "speech",
            "compute_ms": 1000.0 * sum(chunk.computation_time for _, chunk in self.chunks),
        }


def _update(
    before: Sequence[str],
    after: list[str],
    times: list[tuple[float, float]],
    now: tuple[float, float],
) -> list[str]:
    """The words now shown; those that are new, or have another form, get the time of this chunk."""
    kept = 0
    while kept < min(len(before), len(after)) and before[kept] == after[kept]:
        kept += 1
    times[kept:] = [now] * (len(after) - kept)
    return after


def _joiner(vocabulary: Iterable[str]) -> Callable[[Sequence[str]], str]:
    """How tokens become text, by the sign with which words begin."""
    signs = set("".join(vocabulary))
    if "▁" in signs:
        return lambda tokens: "".join(tokens).replace("▁", " ").strip()
    if "Ġ" in signs:
        from tokenizers.decoders import ByteLevel

        decoder = ByteLevel()
        return lambda tokens: str(decoder.decode(list(tokens))).strip()
    return " ".join
