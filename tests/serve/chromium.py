"""A headless Chromium, driven by its DevTools protocol over a WebSocket; no driver besides it."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

_FLAGS = (
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--use-fake-device-for-media-stream",  # a camera that shows a clock
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-port=0",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = {"Enter": ("\r", 13), "ArrowRight": ("", 39), "Tab": ("", 9)}


class Page:
    """A tab.

    Attributes:
        shown: addresses that it was told to load.
        requested: addresses that it asked for.
        complaints: errors and warnings of its console, and breaches of its content policy.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._calls = socket, 0
        self.shown: list[str] = []
        self.requested: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """RuntimeError if the browser refuses."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._calls:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer.get("method"), answer.get("params", {}))

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", script))
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > end:
                raise AssertionError(f"never true: {script}; console: {self.complaints}")
            time.sleep(0.05)
        return value

    def text(self, name: str) -> str:
        """What an element shows, by id."""
        return str(self.evaluate(f"document.getElementById({name!r}).innerText"))

    def show(self, url: str, width: int, height: int, dark: bool = False) -> None:
        """Load a page, in a window of that size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.shown.append(url)
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def type(self, text: str, pause_s: float = 0.0) -> None:
        """Into the element that has the focus, character by character."""
        for character in text:
            self.call("Input.insertText", text=character)
            time.sleep(pause_s)

    def press(self, key: str) -> None:
        """A key of `KEYS`."""
        text, code = KEYS[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def files(self, name: str, path: Path) -> None:
        """Choose a file in a field, by id."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=f"#{name}")["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """As PNG."""
        more: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "scale": 1, "width": size["width"], "height": size["height"]}
            more = {"clip": clip, "captureBeyondViewport": True}
        data = self.call("Page.captureScreenshot", format="png", **more)["data"]
        path.write_bytes(base64.b64decode(data))

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requested.append(told["url"])
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.complaints.append(str(told["args"]))


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """The address of its DevTools; FileNotFoundError where no Chromium is installed.

    Args:
        folder: for its profile.
    """
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        raise FileNotFoundError("no Chromium here: apt-get install -y chromium")
    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _address(folder)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def tab(address: str) -> Iterator[Page]:
    """A new one, closed at the end."""
    request = urllib.request.Request(f"{address}/json/new", method="PUT")
    with urllib.request.urlopen(request, timeout=20) as answer:
        made = json.load(answer)
    with connect(made["webSocketDebuggerUrl"], max_size=None) as socket:
        yield Page(socket)
        urllib.request.urlopen(f"{address}/json/close/{made['id']}", timeout=20).close()


def _address(folder: Path) -> str:
    file = folder / "DevToolsActivePort"
    end = time.monotonic() + 60
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < end, "Chromium does not start"
        time.sleep(0.1)
    return f"http://127.0.0.1:{file.read_text().split()[0]}"
