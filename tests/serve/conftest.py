"""A server with a tiny model, in a thread of this process, once for all tests that can share it."""

import asyncio
import base64
import io
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI
from PIL import Image
from tests.models import save_tiny
from tests.speech_models import save_tiny_listener
from tests.thinking import thinking_model
from tests.video_models import save_tiny_watcher

from proactivellm.backbone.folder import CONFIG_FILE
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.serve.app import create_app
from proactivellm.serve.models import Served
from proactivellm.serve.running import Server, listen, make_server
from proactivellm.serve.settings import Settings

KEY = "key-of-the-tests"
SECRET = "a man in a hat looks at the window"
MAX_NEW_TOKENS = 16  # a random model ends no target by itself


class Running(NamedTuple):
    """A server that listens."""

    app: FastAPI
    port: int
    model: str
    server: Server

    @property
    def url(self) -> str:
        """Where its routes begin."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = KEY, **more: Any) -> AsyncOpenAI:
        """The client of OpenAI, unmodified."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **more)

    @property
    def socket_url(self) -> str:
        """Of the realtime protocol, for a WebSocket without that client."""
        return f"ws://127.0.0.1:{self.port}/v1/realtime"


def picture(frame: np.ndarray, format_: str = "PNG", **more: Any) -> str:
    """Base64 of a picture file of uint8 [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format_, **more)
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """Serves in a thread until the context is left."""
    app = create_app(settings)
    server = make_server(app, settings)
    with listen("127.0.0.1", 0, settings.send_s) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # a slow reader shows soon
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield Running(app, listening.getsockname()[1], settings.models[0], server)
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model that writes 16 tokens."""
    folder = save_tiny("qwen3", tmp_path_factory.mktemp("serve"))
    file = Path(folder) / "generation_config.json"
    file.write_text(f'{{"max_new_tokens": {MAX_NEW_TOKENS}, "eos_token_id": 2}}')
    assert (Path(folder) / CONFIG_FILE).exists()
    return str(folder)


@pytest.fixture(scope="session")
def server(model: str) -> Iterator[Running]:
    """A server that asks for a key."""
    with running(Settings(models=(model,), api_keys=(KEY,), streams=4, sessions=8)) as it:
        yield it


@pytest.fixture(scope="session")
def listener(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model that listens, with a gate."""
    gate = GateSettings(pause_s=0.4)
    return str(save_tiny_listener(tmp_path_factory.mktemp("listener") / "model", gate))


@pytest.fixture(scope="session")
def listens(model: str, listener: str) -> Iterator[Running]:
    """A server with a model that reads text, and one that listens."""
    settings = Settings(models=(model, listener), api_keys=(KEY,), upload_bytes=200_000)
    with running(settings) as it:
        yield it


@pytest.fixture(scope="session")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model that watches, and writes six tokens."""
    folder = save_tiny_watcher(tmp_path_factory.mktemp("watcher"))
    (folder / "generation_config.json").write_text('{"max_new_tokens": 6, "eos_token_id": 2}')
    return str(folder)


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model that thinks."""
    folder = tmp_path_factory.mktemp("thinker")
    model = thinking_model()
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 5
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine, at most 30 seconds."""

    def within(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(asyncio.wait_for(coroutine, 30))

    return within


def break_step(served: Served) -> None:
    """The next step of a turn raises, as if memory ran out."""
    step, streams = served._worker._streams.step, served._worker._streams

    def broken() -> Any:
        if not streams._open:  # the last step of an earlier turn
            return step()
        streams.step = step  # type: ignore[method-assign]
        raise MemoryError(SECRET)

    streams.step = broken  # type: ignore[method-assign]


def break_thread(served: Served) -> None:
    """The thread dies: at once, or once somebody is served."""
    worker = served._worker

    def broken() -> None:
        if worker._served:  # otherwise it may die before the next turn, which notices nothing
            raise RuntimeError(SECRET)

    worker._tell_all = broken  # type: ignore[method-assign]
    worker._put(lambda: None)  # wakes it
