"""The instance log: what is written is read back, what is broken is named, runs can be resumed."""

import io
import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from proactivellm.output.log import Instance, read_log, recover_log, write_instance

FULL = Instance(
    index=0,
    source="Ein Hund läuft .",
    source_length=4,
    prediction="A dog\u2028runs .",  # a line separator inside the text must not split the line
    prediction_length=4,
    reference="A dog is running .",
    delays=[1, 2, 3, 4],
    elapsed=[400.5, 810.0, 1220.25, 1630.0],
    token_delays=[1, 2, 3, 4, 4],
    policy="wait-k:1",
    forwards=9,
    tokens=13,
    first_token_ms=400.5,
    source_ms=1600.0,
    revisions=["A", "A dog"],
)
EMPTY = Instance(
    index=1,
    source="Hm .",
    source_length=2,
    prediction="",
    prediction_length=0,
    delays=[],
    elapsed=[],
    token_delays=[2],
    policy="wait-k:1",
    forwards=3,
    tokens=5,
)
# What SimulEval has in every line; tests/output/test_foreign.py has logs as it writes them.
SIMULEVAL: dict[str, Any] = {
    "index": 0,
    "prediction": "a b c",
    "delays": [3, 4, 4],
    "elapsed": [0, 0, 0],
    "prediction_length": 3,
    "reference": "a b d\n",
    "source": "w x y z",
    "source_length": 4,
}


def write(path: Path, *instances: Instance) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for instance in instances:
            write_instance(file, instance)
    return path


def write_records(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert read_log(write(tmp_path / "log", FULL, EMPTY)) == [FULL, EMPTY]


def test_a_line_has_what_the_other_tools_read() -> None:
    file = io.StringIO()
    write_instance(file, FULL)
    write_instance(file, EMPTY)
    assert "läuft" in file.getvalue()  # readable for people, too
    first, second = map(json.loads, file.getvalue().split("\n")[:2])
    assert list(first)[:2] == ["version", "index"]
    for key in SIMULEVAL:
        assert key in first
    assert len(first["delays"]) == len(first["elapsed"]) == len(first["prediction"].split())
    # An absent reference would be one of length 1 to SimulEval; null means: there is none.
    assert second["reference"] is None
    assert not {"first_token_ms", "source_ms", "revisions"} & set(second)


def test_the_task_and_the_accepted_answers(tmp_path: Path) -> None:
    answer = replace(FULL, index=2, task="qa", answers=["A dog runs .", "a dog"])
    path = write(tmp_path / "log", FULL, answer)
    translation, qa = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:2])
    assert not {"task", "answers"} & set(translation)
    assert (qa["task"], qa["answers"]) == ("qa", ["A dog runs .", "a dog"])
    assert read_log(path) == [FULL, answer]
    write_records(path, qa | {"task": "poetry"})
    with pytest.raises(
        ValueError,
        match=r"line 1: task = 'poetry': .*'qa', 'choice', 'reasoning', 'summary' or 'asr'",
    ):
        read_log(path)


def test_a_log_of_speech(tmp_path: Path) -> None:
    speech = replace(
        FULL,
        source="a.wav",
        source_length=1612.5,
        delays=[640, 1280, 1612.5, 1612.5],
        token_delays=[640, 1280, 1612.5, 1612.5, 1612.5],
        task="asr",
        source_type="speech",
        compute_ms=210.25,
    )
    path = write(tmp_path / "log", speech, EMPTY)
    first, second = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:2])
    assert (first["task"], first["source_type"], first["compute_ms"]) == ("asr", "speech", 210.25)
    assert not {"task", "source_type", "compute_ms"} & set(second)
    read = read_log(path)
    assert read == [speech, EMPTY]
    assert [type(delay) for delay in read[0].delays] == [int, int, float, float]
    write_records(path, first | {"source_type": "A film"})
    with pytest.raises(ValueError, match=r"source_type = 'A film': "):
        read_log(path)


def test_each_line_is_flushed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8", buffering=1 << 20) as file:
        write_instance(file, FULL)
        assert read_log(path) == [FULL]


def test_an_instance_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.index = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Instance(0, "a")  # type: ignore[arg-type, call-arg, misc]


@pytest.mark.parametrize(
    "change",
    [{"delays": [1, 2, 3]}, {"elapsed": [1.0]}, {"prediction_length": 5}, {"prediction": "A dog"}],
)
def test_every_word_needs_its_times(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="numbers of target words disagree"):
        replace(FULL, **change)


def test_numbers_must_be_finite() -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_instance(io.StringIO(), replace(FULL, first_token_ms=float("nan")))


def test_blank_lines_and_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    path = write_records(tmp_path / "log", SIMULEVAL | {"metric": {"AL": 1.0}})
    path.write_text("\n" + path.read_text() + "\n \n")
    assert len(read_log(path)) == 1


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in SIMULEVAL.items() if name != key}


OURS = SIMULEVAL | {"version": 1, "token_delays": [3, 4], "policy": "p", "forwards": 1, "tokens": 2}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (without("delays"), r"missing delays, token_delays"),
        (without("elapsed"), r"missing elapsed; an instance log holds"),
        (SIMULEVAL | {"version": 1}, r"missing token_delays, policy, forwards, tokens"),
        (OURS | {"version": 2}, r"log version 2 is not supported \(supported: 1\); score it with"),
        (OURS | {"delays": ["x", 2, 3]}, r"delays\[0\] = 'x': .*number"),
        (OURS | {"delays": "abc"}, r"delays = 'abc': .*Sequence"),
        (OURS | {"source_length": None}, r"source_length = None: .*number"),
        (SIMULEVAL | {"delays": [3, 4]}, r"the numbers of target words disagree"),
        ([1, 2], r"an instance is a JSON object, found '\[1, 2\]'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, record: Any, message: str) -> None:
    path = write_records(tmp_path / "log", SIMULEVAL | {"index": 7}, record)
    with pytest.raises(ValueError, match=r"log: line 2: " + message) as caught:
        read_log(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_line_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log", EMPTY)
    with path.open("a") as file:
        file.write('{"version": 1, "ind')
    with pytest.raises(ValueError, match=r"line 2: not JSON .*resume it or delete the line"):
        read_log(path)


def test_an_index_may_not_repeat(tmp_path: Path) -> None:
    path = write(tmp_path / "log", EMPTY, FULL, EMPTY)
    with pytest.raises(ValueError, match=r"line 3: index 1 is already that of line 1; delete"):
        read_log(path)


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such file"):
        read_log(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read"):
        read_log(tmp_path)


def test_recovery_after_a_cut_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "log"
    content = write(path, EMPTY, FULL).read_bytes()
    first = content.index(b"\n") + 1
    for end in range(len(content) + 1):  # FULL holds characters of 2 and 3 bytes: those are cut too
        path.write_bytes(content[:end])
        kept = recover_log(path)
        expected = [EMPTY] * (end >= first - 1) + [FULL] * (end >= len(content) - 1)
        assert kept == expected, end
        assert read_log(path) == expected, end
        assert path.read_bytes() in (b"", content[:first], content)
        if len(kept) == 1:  # and the run goes on
            with path.open("a", encoding="utf-8") as file:
                write_instance(file, FULL)
            assert path.read_bytes() == content


def test_recovery_of_nothing(tmp_path: Path) -> None:
    assert recover_log(tmp_path / "nowhere") == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("tail", ["my own notes", '{"version": 1, \n', '{"index": 3}\n'])
def test_recovery_removes_nothing_else(tmp_path: Path, tail: str) -> None:
    path = write(tmp_path / "log", EMPTY)
    content = path.read_bytes() + tail.encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="line 2"):
        recover_log(path)
    assert path.read_bytes() == content


def test_the_log_needs_no_torch() -> None:
    code = "import sys, proactivellm.output.log; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"delays": [3, 4, 5]},
            r"delays\[2\] = 5 lies beyond the source, whose source_length is 4",
        ),
        ({"delays": [3, 2, 4]}, r"delays\[1\] = 2 is less than the 3 before it"),
        ({"delays": [-1, 2, 4]}, r"delays\[0\] = -1: .*greater than or equal to 0"),
        ({"delays": [1, math.nan, 4]}, r"delays\[1\] = nan: a number has to be finite"),
        ({"elapsed": [1, 1, math.inf]}, r"elapsed\[2\] = inf: a number has to be finite"),
        ({"delays": ["1", 2, 3]}, r"delays\[0\] = '1': input should be a number"),
        ({"delays": [True, 2, 3]}, r"delays\[0\] = True: input should be a number"),
        ({"source_length": -4}, r"source_length = -4: .*greater than or equal to 0"),
        ({"index": "0"}, r"index = '0': input should be a valid integer"),
        ({"index": -1}, r"index = -1: .*greater than or equal to 0"),
        ({"prediction": 3}, r"prediction = 3: input should be a valid string"),
        ({"prediction_length": 2}, r"the numbers of target words disagree \(prediction_length: 2"),
        ({"reference_length": 7}, r"reference_length = 7, but the reference has 3 words"),
    ],
)
def test_impossible_values_are_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_records(tmp_path / "log", SIMULEVAL | {"index": 7}, SIMULEVAL | change)
    with pytest.raises(ValueError, match=r"log: line 2: " + message):
        read_log(path)


def test_possible_values_are_read(tmp_path: Path) -> None:
    late = {"delays": [3, 4, 4], "elapsed": [5, 4, 3]}  # clocks of other tools may go back
    assert read_log(write_records(tmp_path / "log", SIMULEVAL | late | {"reference_length": 3}))
    with pytest.raises(ValueError, match=r"elapsed\[1\] = 4 is less than the 5 before it"):
        read_log(write_records(tmp_path / "log", OURS | late))
    # A recording's length is rounded, and so are the delays in it.
    speech = OURS | {"source_type": "speech", "source_length": 3.6, "source_ms": 3.6}
    assert read_log(write_records(tmp_path / "log", speech))[0].delays[-1] == 4


def test_characters_are_counted_where_the_log_says_so(tmp_path: Path) -> None:
    written = replace(
        FULL, prediction="我见 了", prediction_length=3, latency_unit="char", delays=[1, 2, 3],
        elapsed=[1.0, 2.0, 3.0],
    )  # fmt: skip
    assert read_log(write(tmp_path / "log", written, EMPTY)) == [written, EMPTY]
    assert (tmp_path / "log").read_text(encoding="utf-8").count("latency_unit") == 1
    with pytest.raises(ValueError, match="the numbers of target characters disagree"):
        replace(written, prediction="我见")
