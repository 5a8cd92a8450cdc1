"""Logs of other tools as records of ours: SimulEval's `instances.log`, simulstream's metric log.

Both are JSON lines, told from ours and from each other by their keys. What a tool does not log is
None, or the nearest thing it has; times are ms.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StrictStr, TypeAdapter, ValidationError

from proactivellm.output.detokenize import BYTE_OF
from proactivellm.output.scripts import characters, is_unspaced

Record = dict[str, Any]
Tool = Literal["ours", "SimulEval", "simulstream"]
_UNKNOWN: Mapping[str, Any] = {"policy": "unknown", "forwards": None, "tokens": None}


_Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A line of simulstream's log that is not about a recording as a whole; times in s."""

    id: int | str
    total_audio_processed: _Seconds
    computation_time: _Seconds
    generated_tokens: list[StrictStr]
    deleted_tokens: list[StrictStr]


_CHUNK = TypeAdapter(_Chunk)
_Split = Callable[[str], list[str]]


def tool_of(record: Mapping[str, Any]) -> Tool | None:
    """The tool that writes such lines; None if it is none of those known."""
    if "version" in record:
        return "ours"
    if {"metadata", "generated_tokens", "model_loading_time"} & record.keys():
        return "simulstream"
    return "SimulEval" if {"prediction", "delays", "elapsed"} & record.keys() else None


def from_simuleval(record: Mapping[str, Any], where: str) -> Record:
    """A line of SimulEval's `instances.log`.

    `index`, `prediction`, `prediction_length`, `delays`, `elapsed` and `source_length` are taken as
    they are: words read, or, of speech, ms of audio. What they count (`--eval-latency-unit`: words,
    characters or pieces) is told by their number. The schedule g is taken from the same. A
    reference loses its line end. A source that is a list is either words, which are joined, or
    facts about a recording, of which the name is kept. Of speech alone the log tells when the
    source had arrived, `source_length`, and so has computation-aware latency, on SimulEval's clock:
    it counts computing and listening one after the other.

    Raises:
        ValueError: the prediction is speech.
    """
    if "durations" in record:
        raise ValueError(f"{where}: SimulEval's log of spoken output; only text can be scored")
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
    ours |= _unit_of(record)
    if is_speech:
        ours["source_type"] = "speech"
    if is_speech and "source_length" in record:
        ours.setdefault("source_ms", record["source_length"])
        elapsed = record.get("elapsed")
        if isinstance(elapsed, list) and elapsed:
            ours.setdefault("first_token_ms", elapsed[0])
    return ours


def _unit_of(record: Mapping[str, Any]) -> Record:
    """What SimulEval counted, told by the number of delays; words where it fits nothing else."""
    text, delays = record.get("prediction"), record.get("delays")
    if not isinstance(text, str) or not isinstance(delays, list):
        return {}
    if isinstance(pieces := record.get("prediction_spm"), list) and len(pieces) == len(delays):
        return {"latency_unit": "spm", "prediction_length": len(delays)}
    letters = text.replace(" ", "")  # other white space is a character to SimulEval
    if len(delays) == len(text.split()) or len(delays) != len(letters):
        return {"prediction_spm": None}
    kept = [place for place, letter in enumerate(letters) if not letter.isspace()]
    changed: Record = {"latency_unit": "char", "prediction_length": len(kept)}
    for name in ("delays", "elapsed"):
        times = record.get(name)
        if isinstance(times, list) and len(times) == len(letters):
            changed[name] = [times[place] for place in kept]
    return changed


def from_simulstream(lines: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Record]]:
    """Our records of the recordings in simulstream's metric log, with their places, not validated.

    A recording begins with `{"id", "metadata": {"wav_name"}}`; each chunk of it is
    `{"id", "total_audio_processed", "computation_time", "generated_tokens", "deleted_tokens"}`, in
    seconds. Lines without an id tell what the server did, as the first one does
    (`model_loading_time`), and are passed over. The source is `wav_name`; its length is the audio
    processed at the end, in ms. The delay of a word is the audio processed when it got its final
    form; elapsed is that and the computation of its chunk, as simulstream has it (a chunk that
    comes late does not delay the next). The time of computing is that of all chunks. Where tokens
    were deleted, the texts that were shown become `revisions`. There is no reference. Tokens become
    text as those of SentencePiece ("▁" begins a word), of byte-level BPE ("Ġ" does), or else as
    words, by the sign. Texts of a script without spaces are counted in characters, else in words.

    Args:
        lines: place (file and line) and content of each line.

    Raises:
        ValueError: a line lacks a key or has a wrong value, or deletes tokens that are not there;
            names the place.
    """
    recordings = _recordings(lines)
    chunks = [chunk for each in recordings.values() for _, chunk in each.chunks]
    tokens = [token for chunk in chunks for token in chunk.generated_tokens]
    join = _joiner(tokens)
    unspaced = is_unspaced([join(tokens)])
    split = characters if unspaced else str.split
    unit = {"latency_unit": "char" if unspaced else "word"}
    return [
        (each.where, each.record(join, split) | unit | {"index": index, "source": name})
        for index, (name, each) in enumerate(recordings.items())
    ]


def _recordings(lines: Iterable[tuple[str, Mapping[str, Any]]]) -> "dict[str, _Recording]":
    """The chunks of each recording, by its name."""
    recordings: dict[str, _Recording] = {}
    name_of: dict[str, str] = {}
    for where, line in lines:
        if "id" not in line:
            if "generated_tokens" in line or "metadata" in line:
                raise ValueError(f"{where}: no id: which recording is it of?")
            continue
        number = str(line["id"])
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
    return recordings


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

    def record(self, join: Callable[[Sequence[str]], str], split: _Split) -> Record:
        """The record of the recording, without its index and its source."""
        tokens: list[str] = []
        token_delays: list[float] = []
        words: list[str] = []
        times: list[tuple[float, float]] = []  # of each word: audio processed, elapsed
        texts: list[str] = []
        read_ms, is_revised = 0.0, False
        for where, chunk in self.chunks:
            if 1000.0 * chunk.total_audio_processed < read_ms:
                raise ValueError(
                    f"{where}: total_audio_processed = {chunk.total_audio_processed} s is less "
                    f"than the {read_ms / 1000} s before it"
                )
            read_ms = 1000.0 * chunk.total_audio_processed
            now = (read_ms, read_ms + 1000.0 * chunk.computation_time)
            if deleted := chunk.deleted_tokens:
                if tokens[-len(deleted) :] != deleted:
                    raise ValueError(f"{where}: deleted_tokens are not the last that were there")
                is_revised = True
                del tokens[-len(deleted) :], token_delays[-len(deleted) :]
                words = _update(words, split(join(tokens)), times, now)
            tokens += chunk.generated_tokens
            token_delays += [read_ms] * len(chunk.generated_tokens)
            texts.append(join(tokens))
            words = _update(words, split(texts[-1]), times, now)
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


def _joiner(tokens: Sequence[str]) -> Callable[[Sequence[str]], str]:
    """How tokens become text, told from all of a log by the sign with which words begin."""
    signs = set("".join(tokens))
    if "▁" in signs:
        return lambda tokens: "".join(tokens).replace("▁", " ").strip()
    if "Ġ" in signs or _are_bytes(tokens):
        from tokenizers.decoders import ByteLevel

        decoder = ByteLevel()
        return lambda tokens: str(decoder.decode(list(tokens))).strip()
    return "".join if is_unspaced(tokens) else " ".join


def _are_bytes(tokens: Sequence[str]) -> bool:
    """Whether tokens without a sign are byte-level: where there are no spaces, none has it."""
    text = "".join(tokens)
    if not BYTE_OF.keys() >= set(text):
        return False
    return is_unspaced([bytes(map(BYTE_OF.__getitem__, text)).decode("utf-8", "ignore")])
