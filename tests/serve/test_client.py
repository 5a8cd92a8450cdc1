"""Our own client: what it streams is what a stream writes; what is refused is told."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from tests.serve.conftest import KEY, Running
from tests.serve.test_audio import alone as alone_heard
from tests.serve.test_audio import recording
from tests.serve.test_realtime import SOURCE, alone

from proactivellm.cli import main
from proactivellm.client import Client, Delta, ServerError, SpeechClient

RunIt = Callable[..., Any]


def of(server: Running, **more: Any) -> Client:
    return Client(server.url, model=server.model, **{"key": KEY, **more})


async def all_of(client: Client, source: Any) -> list[Delta]:
    return [delta async for delta in client.stream(source)]


def test_turns_of_one_connection_are_streams(server: Running, run: RunIt) -> None:
    async def talk() -> list[list[Delta]]:
        async with of(server, policy="wait-k:2") as client:
            assert "wait-k:2" in str(client.session)
            sources = [SOURCE, [], [SOURCE[:7], "", SOURCE[7:]]]
            return [await all_of(client, source) for source in sources]

    first, nothing, last = run(talk())
    expected = alone(server.model, SOURCE, "wait-k:2")
    assert "".join(delta.text for delta in first) == expected
    assert "".join(delta.text for delta in last) == expected
    assert nothing == []
    assert first[0].source_units == 2 and first[0].reason and first[0].elapsed_ms >= 0


def test_words_come_back_before_the_source_has_ended(server: Running, run: RunIt) -> None:
    async def talk() -> int:
        heard = asyncio.Event()

        async def source() -> AsyncIterator[str]:
            for word in SOURCE.split()[:6]:
                yield f"{word} "
            await heard.wait()  # the source goes on only after something was written
            yield "sleeps"

        async with of(server, policy="wait-k:2") as client:
            deltas = []
            async for delta in client.stream(source()):
                deltas.append(delta)
                heard.set()
            return len(deltas)

    assert run(talk()) > 3


def test_a_turn_that_is_left_is_cancelled_and_the_next_one_runs(
    server: Running, run: RunIt
) -> None:
    async def talk() -> list[Delta]:
        async with of(server, policy="wait-k:2") as client:
            async for _ in client.stream(SOURCE):
                break  # Python closes the turn a little later, when the next one has begun
            return await all_of(client, SOURCE)

    assert "".join(d.text for d in run(talk())) == alone(server.model, SOURCE, "wait-k:2")


def test_speech_is_transcribed_turn_by_turn(listens: Running, listener: str, run: RunIt) -> None:
    pcm = recording(16_000).tobytes()
    pieces = [pcm[start : start + 6400] for start in range(0, len(pcm), 6400)]

    async def talk() -> tuple[list[Delta], list[Delta]]:
        how: dict[str, Any] = {"model": listener, "policy": "wait-k:2", "key": KEY}
        async with SpeechClient(listens.url, rate=16_000, **how) as client:
            first = [delta async for delta in client.stream(pieces)]
            async for _ in client.stream(pieces):
                break
            return first, [delta async for delta in client.stream(pieces)]

    for deltas in run(talk()):
        assert "".join(d.text for d in deltas) == alone_heard(listener, 16_000).lstrip() != ""
        ends = [delta.source_s for delta in deltas]
        assert ends == sorted(ends) and 0 < ends[0] < ends[-1] <= len(pcm) / 32_000


def test_what_breaks_the_source_is_raised(server: Running, run: RunIt) -> None:
    async def talk() -> None:
        def source() -> Any:
            yield "a man "
            raise KeyError("microphone")

        async with of(server) as client:
            await all_of(client, source())

    with pytest.raises(KeyError, match="microphone"):
        run(talk())


@pytest.mark.parametrize(
    ("url", "how", "told"),
    [
        ("{url}", {"key": "wrong"}, "cannot connect to ws://127.0.0.1:.*40[13]"),
        ("{url}", {"policy": "nonsense"}, "nonsense"),
        ("{url}", {"model": "no-such"}, "no-such"),
        ("http://127.0.0.1:9", {}, "cannot connect to ws://127.0.0.1:9/v1/realtime"),
        ("127.0.0.1:8000", {}, "'127.0.0.1:8000' is no address of a server: give one like http://"),
    ],
)
def test_refusals_are_one_line(
    server: Running, run: RunIt, url: str, how: dict[str, Any], told: str
) -> None:
    async def talk() -> None:
        async with Client(url.format(url=server.url), **{"key": KEY, **how}):
            pass

    with pytest.raises(ValueError, match=told) as caught:
        run(talk())
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ServerError) == ("address" not in told)


def test_the_command(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def client(*flags: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["client", "--url", server.url, "--model", server.model, *flags])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    (tmp_path / "in.txt").write_text(f"{SOURCE}\n\n{SOURCE}\n", encoding="utf-8")
    flags = ["--input", str(tmp_path / "in.txt"), "--policy", "wait-k:2"]
    expected = alone(server.model, SOURCE, "wait-k:2")
    assert client(*flags, "--api-key", KEY) == (0, f"{expected}\n{expected}\n", "")
    code, out, err = client(*flags)
    assert (code, out) == (2, "") and err.startswith("error: cannot connect to ws://127.0.0.1")
    monkeypatch.setenv("PROACTIVELLM_API_KEY", KEY)
    assert client(*flags, "--rate", "60000")[1] == f"{expected}\n{expected}\n"


def test_what_a_server_writes_does_not_control_the_terminal(
    server: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hostile(client: Client, source: Any, thoughts: bool) -> AsyncIterator[Delta]:
        async for _ in source:
            pass
        yield Delta("\x1b[2Ja\nb", 1, None, 0.0, None, None)

    def out() -> str:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"x\n"), **quiet))
        with pytest.raises(SystemExit):
            main(["client", "--url", server.url, "--model", server.model, "--api-key", KEY])
        return capsys.readouterr().out

    quiet = {"isatty": lambda: False, "closed": False}
    monkeypatch.setattr(Client, "stream", hostile)
    assert out() == "\x1b[2Ja b\n"  # into a pipe, as it is, but for lines, which are targets
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert out() == "\ufffd[2Ja b\n"


def test_a_recording_goes_to_a_server_by_the_command(
    listens: Running, listener: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.wav"
    pcm = np.frombuffer(recording(16_000), "<i2")
    soundfile.write(file, pcm, 16_000, "PCM_16")
    flags = ["--url", listens.url, "--model", listener, "--api-key", KEY, "--input", str(file)]
    with pytest.raises(SystemExit) as end:
        main(["client", *flags, "--policy", "wait-k:2"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{alone_heard(listener, 16_000).lstrip()}\n"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--input", "a.wav", "--question", "who"], "--question is not for a recording"),
        (["--input", "a.mp4", "--rate", "100"], "--rate is not for a video"),
        (["--input", "a.mp4", "--ask-at", "1"], "give one with --question"),
        (["--input", "a.txt", "--real-time"], "--real-time is not for text"),
        (["--input", "a.mp4"], "a.mp4: there is no such file"),
        (["--input", "a.wav"], "a.wav"),
    ],
)
def test_what_the_command_cannot_send_is_told(
    listens: Running,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    told: str,
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["client", "--url", listens.url, "--api-key", KEY, *flags])
    err = capsys.readouterr().err
    assert end.value.code == 2 and told in err and len(err.splitlines()) == 1
