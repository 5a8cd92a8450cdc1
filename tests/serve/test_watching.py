"""A model for video behind the server: pictures in, what is written of them out."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
from PIL import Image
from tests.serve.conftest import KEY, Running, picture, running
from tests.serve.test_realtime import text_of, until
from tests.thinking import THINKING
from tests.video_models import save_tiny_watcher

from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.cli import main
from proactivellm.cli.client_media import JPEG_QUALITY
from proactivellm.client import Delta, VideoClient
from proactivellm.modality.loading import load
from proactivellm.policy.spec import parse_policy
from proactivellm.serve.pictures import decode
from proactivellm.serve.settings import Settings
from proactivellm.stream import MediaUnits, stream_units
from proactivellm.train.control_token import add_thinking

QUESTION = "how many cats"
FRAMES = np.random.default_rng(0).integers(0, 256, (7, 60, 88, 3), dtype=np.uint8)
POLICY = "wait-k:1,stride=0.001"  # the model itself says when it begins
APPEND = "input_image_buffer.append"
RunIt = Callable[..., Any]


PICTURES = [picture(frame) for frame in FRAMES]


@pytest.fixture(scope="module")
def watches(watcher: str, model: str) -> Iterator[Running]:
    """A server with it, and with a model that reads text."""
    settings = Settings(models=(watcher, model), api_keys=(KEY,), waiting_s=5)
    with running(settings) as it:
        yield it


@pytest.fixture(scope="module")
def alone(watcher: str) -> Callable[..., str]:
    """What is written of the pictures without a server."""
    model = load(watcher)

    def write(frames: np.ndarray = FRAMES, question: str = "", at_s: float | None = None) -> str:
        media = MediaUnits(model, (frame[None] for frame in frames), 2, question, at_s)
        events = stream_units(model, parse_policy(POLICY).bound_to(model), media)
        return "".join(event.text for event in events if event.kind == "WRITE")

    return write


async def settle(connection: Any, **extension: Any) -> None:
    asked = {"policy": POLICY, **extension}
    await connection.session.update(session={"type": "realtime", "proactivellm": asked})
    await until(connection, "session.updated")


async def show(connection: Any, pictures: list[str]) -> None:
    for image in pictures:
        await connection.send({"type": APPEND, "image": image})


async def ask(connection: Any, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await connection.conversation.item.create(item=item)


async def refused(connection: Any, event: dict[str, Any]) -> tuple[str, str]:
    await connection.send(event)
    while (told := await connection.recv()).type != "error":
        pass
    return told.error.code, told.error.message


@pytest.mark.parametrize("question", [QUESTION, ""])
def test_pictures_that_stream_are_answered_as_without_a_server(
    watches: Running, run: RunIt, alone: Callable[..., str], question: str
) -> None:
    async def talk() -> list[Any]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            await settle(connection, question=question)
            await show(connection, PICTURES)
            await connection.send({"type": "input_image_buffer.commit"})
            return await until(connection, "response.done")

    events = run(talk())
    assert text_of(events) == alone(question=question) != ""
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert deltas[0].proactivellm["source_units"] < 4  # moments of the four
    done = events[-1].response
    assert done.status == "incomplete" and done.usage.input_tokens > 0  # it writes six tokens
    kinds = [event.type for event in events]
    item = events[kinds.index("conversation.item.added")].item
    assert [content.type for content in item.content] == ["input_image"]


def test_a_question_is_asked_when_it_comes_and_nothing_is_written_before(
    watches: Running, run: RunIt, alone: Callable[..., str]
) -> None:
    async def talk() -> tuple[list[Any], list[Any]]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            await settle(connection, decisions=True)
            await show(connection, PICTURES[:4])
            before = []
            while sum(event.type == "proactivellm.decision" for event in before) < 2:
                before.append(await connection.recv())
            await ask(connection, QUESTION)
            after = await until(connection, "conversation.item.done")
            await show(connection, PICTURES[4:])
            await connection.send({"type": "input_image_buffer.commit"})
            return before, after + await until(connection, "response.done")

    before, after = run(talk())
    assert not text_of(before)
    assert all(event.action == "READ" for event in before if hasattr(event, "action"))
    assert text_of(after) == alone(question=QUESTION, at_s=2.0)


def test_the_next_question_ends_the_video_and_begins_another(
    watches: Running, run: RunIt, alone: Callable[..., str]
) -> None:
    async def talk() -> tuple[list[Any], list[Any]]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            await settle(connection)
            await show(connection, PICTURES[:4])
            await ask(connection, QUESTION)
            await ask(connection, "and dogs")
            first = await until(connection, "response.done")
            await show(connection, PICTURES[2:6])
            await connection.send({"type": "input_image_buffer.commit"})
            return first, await until(connection, "response.done")

    first, second = run(talk())
    assert text_of(first) == alone(FRAMES[:4], QUESTION, 2.0)
    assert "input_image_buffer.committed" in [event.type for event in first]
    assert text_of(second) == alone(FRAMES[2:6], "and dogs")


def test_what_was_watched_so_far_is_asked_about_beside_it(
    watches: Running, run: RunIt, alone: Callable[..., str]
) -> None:
    def asking(text: str) -> dict[str, Any]:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        return {"input": [item], "conversation": "none"}

    async def talk() -> tuple[list[str], str]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            await settle(connection)
            await show(connection, PICTURES[:2])
            watched = (await until(connection, "response.created"))[-1].response.id
            texts = []
            for text in (QUESTION, "and dogs"):
                await connection.response.create(response=asking(text))
                events = await until(connection, "response.done")
                assert events[-1].response.id != watched
                texts.append(text_of(events))
            code, _ = await refused(
                connection, {"type": "response.create", "response": asking(" ")}
            )
            assert code == "no_input"
            await show(connection, PICTURES[2:])
            await ask(connection, QUESTION)
            await connection.send({"type": "input_image_buffer.commit"})
            done = await until(connection, "response.done")
            assert done[-1].response.id == watched
            return texts, text_of(done)

    texts, whole = run(talk())
    assert texts == [alone(FRAMES[:2], asked, 1.0) for asked in (QUESTION, "and dogs")]
    assert whole == alone(question=QUESTION, at_s=3.5)


def test_messages_with_pictures_are_a_whole_video(
    watches: Running, run: RunIt, alone: Callable[..., str]
) -> None:
    async def talk() -> tuple[list[Any], list[Any]]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            await settle(connection)
            urls = [f"data:image/png;base64,{image}" for image in PICTURES]
            content = [{"type": "input_image", "image_url": url} for url in urls]
            await ask(connection, QUESTION)
            item = {"type": "message", "role": "user", "content": content}
            await connection.conversation.item.create(item=item)
            await connection.response.create()
            kept = await until(connection, "response.done")
            item["content"] = [{"type": "input_text", "text": QUESTION}, *content[:4]]
            await connection.response.create(response={"input": [item], "conversation": "none"})
            return kept, await until(connection, "response.done")

    kept, given = run(talk())
    assert text_of(kept) == alone(question=QUESTION)
    assert text_of(given) == alone(FRAMES[:4], QUESTION)


@pytest.mark.parametrize("at", [None, 4])
def test_our_client_sends_pictures_and_a_question(
    watches: Running, run: RunIt, alone: Callable[..., str], at: int | None
) -> None:
    async def talk() -> str:
        pieces: list[bytes | str] = [base64.b64decode(image) for image in PICTURES]
        if at is not None:
            pieces.insert(at, QUESTION)
        more = {"question": QUESTION} if at is None else {}
        async with VideoClient(watches.url, policy=POLICY, key=KEY, **more) as client:
            assert client.session["proactivellm"]["frames_per_s"] == 2
            return "".join([delta.text async for delta in client.stream(pieces)])

    assert run(talk()) == alone(question=QUESTION, at_s=None if at is None else 2.0)


@pytest.mark.parametrize("at", [None, "2"])
def test_a_video_goes_to_a_server_by_the_command(
    watches: Running,
    alone: Callable[..., str],
    at: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent = []
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
        sent.append(decode(picture(frame, "JPEG", quality=JPEG_QUALITY), 10_000, "image"))
    flags = ["--url", watches.url, "--api-key", KEY, "--policy", POLICY, "--question", QUESTION]
    flags += ["--input", str(tmp_path), *(["--ask-at", at] if at else [])]
    with pytest.raises(SystemExit) as end:
        main(["client", *flags])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    expected = alone(np.stack(sent), QUESTION, float(at) if at else None)
    assert " ".join(out.split()) == " ".join(expected.split()) != ""


def test_a_model_that_reads_text_watches_nothing(
    watches: Running, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(FRAMES[0]).save(tmp_path / "0.png")
    flags = ["--url", watches.url, "--api-key", KEY, "--model", model, "--input", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main(["client", *flags])
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1 and "neither thinks nor watches" in err


def test_a_model_that_thinks_while_it_watches_tells_its_thoughts(
    tmp_path: Path, run: RunIt
) -> None:
    folder = save_tiny_watcher(tmp_path)
    model = load(folder)
    add_thinking(model.model, model.tokenizer, THINKING)
    model.model.generation_config.max_new_tokens = 5
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    prompt = Prompt(source_head="see ", source_open="at ", source_tail=" end", target_head="say ")
    StreamSettings(layout="thoughts", prompt=prompt, thinking=THINKING).save(folder)
    with running(Settings(models=(str(folder),), thought_tokens=4)) as server:

        async def talk() -> list[Delta]:
            pieces = [base64.b64decode(image) for image in PICTURES]
            async with VideoClient(server.url, question=QUESTION, depth=1) as client:
                assert client.session["proactivellm"]["depth"] == 1
                assert client.session["proactivellm"]["delays"]["minimal"] == "wait-k:1"
                return [delta async for delta in client.stream(pieces, thoughts=True)]

        deltas = run(talk())
    thoughts = {delta.thought for delta in deltas if delta.thought is not None}
    assert len(thoughts) >= 4  # about each moment
    assert deltas[0].thought == 0 and deltas[0].source_units == 1
    assert deltas[-1].thought is None and deltas[-1].text


def test_what_is_not_answered_can_be_taken_back(watches: Running, run: RunIt) -> None:
    async def talk() -> tuple[list[Any], tuple[str, str]]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            await settle(connection)
            await show(connection, PICTURES[:2])
            await connection.send({"type": "input_image_buffer.clear"})
            events = await until(connection, "response.done")
            content = [{"type": "input_image", "image_url": f"data:,{PICTURES[0]}"}]
            item = {"id": "mine", "type": "message", "role": "user", "content": content}
            await connection.conversation.item.create(item=item)
            await connection.conversation.item.delete(item_id="mine")
            return events, await refused(connection, {"type": "response.create"})

    events, (code, _) = run(talk())
    assert events[-1].response.status == "cancelled" and not text_of(events)
    assert code == "no_input"


WRONG = [
    ({"type": APPEND, "image": "no base64!"}, "invalid_image", "base64"),
    ({"type": APPEND, "image": base64.b64encode(b"%PDF").decode()}, "invalid_image", "is none"),
    ({"type": APPEND, "image": picture(FRAMES[0], "GIF")}, "invalid_image", "JPEG, PNG or WebP"),
    ({"type": APPEND, "image": PICTURES[0][: len(PICTURES[0]) // 8 * 4]}, "invalid_image", "JPEG"),
    (
        {"type": APPEND, "image": picture(np.zeros((1100, 2000, 3), np.uint8))},
        "input_too_long",
        "2000 x 1100: send it smaller",
    ),
    ({"type": APPEND}, "invalid_event", "image"),
    ({"type": APPEND, "image": ""}, "invalid_image", "is none"),
    ({"type": "input_image_buffer.commit"}, "input_image_buffer_commit_empty", "nothing"),
    ({"type": "input_text_buffer.append", "text": "a"}, "not_supported", "watches pictures"),
    ({"type": "input_audio_buffer.append", "audio": ""}, "not_supported", "watches pictures"),
    ({"type": "response.create"}, "no_input", "nothing to respond to"),
    (
        {"type": "session.update", "session": {"proactivellm": {"depth": 1}}},
        "not_supported",
        "does not think",
    ),
]


def test_what_cannot_be_done_is_refused_and_the_session_goes_on(
    watches: Running, run: RunIt, model: str
) -> None:
    url = {"type": "input_image", "image_url": "https://example.org/cat.png"}
    item = {"type": "message", "role": "user", "content": [url]}
    many = [{"type": "input_image", "image_url": f"data:,{PICTURES[0]}"}] * 11
    full = {"type": "message", "role": "user", "content": many}
    other = {"type": "session.update", "session": {"model": model}}
    more = [
        ({"type": "conversation.item.create", "item": item}, "not_supported", "no data URL"),
        ({"type": "conversation.item.create", "item": full}, "input_buffer_full", "11 of 2"),
        (other, "not_supported", "which reads text, in a session of video"),
    ]

    async def talk() -> list[Any]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            for event, code, words in [*WRONG, *more]:
                found = await refused(connection, event)
                assert found[0] == code and words in found[1], (event["type"], found)
            await settle(connection, question="")
            jpeg = picture(np.zeros((60, 88, 3), np.uint8), "JPEG")
            await show(connection, [picture(FRAMES[0], "WEBP"), jpeg])
            await connection.send({"type": "input_image_buffer.commit"})
            return await until(connection, "response.done")

    assert text_of(run(talk()))


def test_too_many_pictures_are_refused_before_one_is_unpacked(
    watches: Running, run: RunIt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpacked(*_: Any) -> None:
        raise AssertionError("a picture was unpacked")

    monkeypatch.setattr("proactivellm.serve.realtime.watched.decode", unpacked)
    content = [{"type": "input_image", "image_url": f"data:,{PICTURES[0]}"}] * 11
    item = {"type": "message", "role": "user", "content": content}

    async def talk() -> list[str]:
        async with watches.client().realtime.connect(model=watches.model) as connection:
            events = [
                {"type": "conversation.item.create", "item": item},
                {"type": "response.create", "response": {"input": [item]}},
            ]
            return [(await refused(connection, event))[0] for event in events]

    assert run(talk()) == ["input_buffer_full"] * 2


def test_a_picture_is_turned_as_its_camera_says() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the upper side is on the right
    half = np.zeros((20, 40, 3), np.uint8)
    half[:, :20] = 255
    upright = decode(picture(half, exif=turned), 10_000, "image")
    assert upright.shape == (40, 20, 3) and upright[:20].all() and not upright[20:].any()


def test_other_sessions_do_not_take_a_model_for_video(
    watches: Running, run: RunIt, model: str, watcher: str
) -> None:
    async def texts() -> tuple[str, str]:
        async with watches.client().realtime.connect(model=model) as connection:
            update = {"type": "session.update", "session": {"model": watcher}}
            return await refused(connection, update)

    code, message = run(texts())
    assert code == "not_supported" and "reads video, in a session of text" in message


@pytest.mark.parametrize("address", ["/translations", "?intent=transcription"])
def test_other_protocols_say_that_it_watches(
    watches: Running, run: RunIt, watcher: str, address: str
) -> None:
    async def talk() -> dict[str, Any]:
        joint = "&" if "?" in address else "?"
        url = f"{watches.socket_url}{address}{joint}model={watcher}"
        headers = {"Authorization": f"Bearer {KEY}"}
        async with websockets.connect(url, additional_headers=headers) as connection:
            told: dict[str, Any] = json.loads(await connection.recv())
            return told

    told = run(talk())
    assert told["type"] == "error" and "reads video" in told["error"]["message"]


def test_sight_is_bounded_as_the_server_is_told(
    watcher: str, run: RunIt, alone: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(models=(watcher,), attend_chunks=1, drop_tokens="feature:0.5")
    with running(settings) as server:
        (served,) = server.app.state.models
        assert served.engine.limits.sight.units == 1
        assert served.engine.limits.sight.beyond == "dropped"
        assert served.model.front_end.settings.drop_tokens == "feature:0.5"

        async def talk() -> str:
            async with server.client().realtime.connect(model=watcher) as connection:
                await settle(connection, question=QUESTION, policy="wait-k:4,stride=0.001")
                await show(connection, PICTURES)
                await connection.send({"type": "input_image_buffer.commit"})
                return text_of(await until(connection, "response.done"))

        assert run(talk()) != alone(question=QUESTION)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--attend-chunks", "2"], "attend_chunks is for video"),
        (["--recall-chunks", "2"], "give attend_chunks as well"),
    ],
)
def test_flags_of_video_are_for_models_that_watch(
    model: str, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "--model", model, "--check", *flags])
    assert exit_.value.code == 2 and words in capsys.readouterr().err


def test_the_list_of_models_says_what_they_read(watches: Running, watcher: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    data = httpx.get(f"{watches.url}/v1/models", headers=headers).json()["data"]
    assert [each["proactivellm"]["input"] for each in data] == ["video", "text"]
    assert data[0]["proactivellm"]["unit"] == "video unit"
    assert Path(data[0]["id"]) == Path(watcher)
