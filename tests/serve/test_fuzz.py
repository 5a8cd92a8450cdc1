"""Messages of any shape, at every kind of session: each is answered, and nothing breaks."""

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.serve.conftest import Running, picture, running
from websockets.asyncio.client import connect

from proactivellm.serve.settings import Settings

CASES = int(os.environ.get("PROACTIVELLM_FUZZ_CASES", "25"))  # of each kind; 2500 before a release

_TYPES = ["session.update", "conversation.item.create", "conversation.item.retrieve"]
_TYPES += ["conversation.item.delete", "response.create", "response.cancel"]
_TYPES += [
    f"{buffer}.{name}"
    for buffer in (
        *("input_text_buffer", "input_audio_buffer", "input_image_buffer"),
        "session.input_audio_buffer",
    )
    for name in ("append", "commit", "clear")
]
_KEYS = ["session", "item", "item_id", "response", "response_id", "text", "event_id", "type"]
_KEYS += ["id", "role", "content", "model", "input", "metadata", "proactivellm", "policy", "delay"]
_KEYS += ["previous_item_id", "conversation", "max_output_tokens", "output_modalities", "audio"]
_KEYS += [
    "image",
    "image_url",
    "question",
    "format",
    "rate",
    "transcription",
    "turn_detection",
    "include",
    "output",
    "language",
]
_AUDIO = st.binary(max_size=400).map(lambda raw: base64.b64encode(raw).decode())
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | _AUDIO
_LEAVES |= st.sampled_from(["user", "message", "input_text", "wait-k:2", "none", "root", "text"])
_LEAVES |= st.sampled_from(["audio/pcm", "audio/pcmu", "server_vad", "transcription", "realtime"])
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
_EVENTS = st.builds(
    lambda kind, more: json.dumps({**more, "type": kind}),
    st.sampled_from(_TYPES) | _LEAVES,
    st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=4),
)
_PICTURE = picture(np.full((30, 44, 3), 99, np.uint8))
_LEAVES |= st.sampled_from(["input_image", _PICTURE, f"data:image/png;base64,{_PICTURE}"])
_SHOWN = {"type": "input_image", "image_url": f"data:image/png;base64,{_PICTURE}"}
_PICTURES = st.sampled_from(
    [
        json.dumps({"type": "input_image_buffer.append", "image": _PICTURE}),
        json.dumps(
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "content": [_SHOWN]},
            }
        ),
    ]
)
_APPENDS = st.builds(
    lambda kind, audio: json.dumps({"type": f"{kind}input_audio_buffer.append", "audio": audio}),
    st.sampled_from(["", "session."]),
    _AUDIO,
)
_MESSAGES = _EVENTS | _APPENDS | _PICTURES | st.text(max_size=40) | st.binary(max_size=20)
_MESSAGES |= st.just("[" * 5000)


@pytest.fixture(scope="module")
def open_to_all(model: str, listener: str, watcher: str) -> Iterator[Running]:
    """A server that takes events as fast as they come."""
    models = (model, listener, watcher)
    with running(Settings(models=models, resume_s=0.0, events_per_s=10**6)) as it:
        yield it


def drawn() -> list[str | bytes]:
    """Messages, all before the first is sent: the threads of a server draw random numbers too."""
    messages: list[str | bytes] = []

    @hypothesis_settings(max_examples=CASES, deadline=None, database=None, derandomize=True)
    @given(_MESSAGES)
    def draw(message: str | bytes) -> None:
        messages.append(message)

    draw()
    return messages


@pytest.mark.parametrize(
    "where",
    [
        *("", "?model={listener}", "?model={watcher}"),
        *("?intent=transcription", "/translations?model={listener}"),
    ],
)
def test_no_message_brings_it_down(
    open_to_all: Running, listener: str, watcher: str, where: str
) -> None:
    messages = drawn()

    async def talk() -> None:
        url = open_to_all.socket_url + where.format(listener=listener, watcher=watcher)
        async with connect(url, max_queue=None) as client:
            for number, message in enumerate(messages):
                with suppress(UnicodeEncodeError):  # half a surrogate pair does not leave here
                    await client.send(message)
                await client.send(json.dumps({"type": "probe", "event_id": f"probe {number}"}))
                await answered(client, f"probe {number}", message)

    asyncio.run(talk())


async def answered(client: Any, probe: str, message: str | bytes) -> None:
    """Waits until the server has answered what came after the message."""
    while True:
        event = json.loads(await asyncio.wait_for(client.recv(), 30))
        error = event.get("error") or {}
        assert error.get("type") != "server_error", (message, event)
        assert event.get("response", {}).get("status") != "failed", (message, event)
        if error.get("event_id") == probe:
            return
