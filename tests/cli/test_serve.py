"""`proactivellm serve`: settings from everywhere, mistakes in one line, an end by signal."""

import json
import signal
import sys
from pathlib import Path

import httpx
import pytest
from tests.cli.commands import Forked, Run
from typer.main import get_command
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from proactivellm.cli.app import app
from proactivellm.serve.settings import PREFIX, Settings, read_settings


def test_flags_stand_above_the_environment_and_that_above_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nstreams = 2\nsessions = 3\nmodels = ["x", "y"]\n')
    monkeypatch.setenv(f"{PREFIX}STREAMS", "20")
    monkeypatch.setenv(f"{PREFIX}PORT", "30")
    monkeypatch.setenv(f"{PREFIX}API_KEYS", "one, two")
    settings = read_settings({"port": 400}, file)
    assert (settings.port, settings.streams, settings.sessions) == (400, 20, 3)
    assert settings.models == ("x", "y")
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert Settings().models[0] == "tatoeba-de-en"


@pytest.mark.parametrize(
    ("flags", "file", "message"),
    [
        (["--port", "70000"], "", "--port: Input should be less than or equal to 65535"),
        (["--api-key", "a b"], "", "--api-key: a key is made of visible ASCII characters"),
        ([], "prot = 1", "unknown setting 'prot'; did you mean 'port'?"),
        ([], 'idle_s = "x"', "idle_s: Input should be a valid number"),
        (["--tls-key", "k.pem"], "", "tls_certificate and tls_key belong together: give both"),
        (["--model", "nobody"], "", "nobody"),
    ],
)
def test_a_mistake_is_one_line(
    run: Run, tmp_path: Path, flags: list[str], file: str, message: str
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(file)
    assert message in run("serve", *flags, "--config", config, "--check").error


def test_what_is_of_a_cluster_needs_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "replicas is of a Ray cluster: give --ray as well"
    assert run("serve", "--replicas", "2").error == told
    told = "max_replicas is less than the 3 replicas there are"
    assert run("serve", "--ray", "--replicas", "3", "--max-replicas", "2").error == told
    monkeypatch.setitem(sys.modules, "ray", None)
    told = "serve --ray needs ray, which is not installed: pip install 'proactivellm[ray]'"
    assert run("serve", "--ray").error == told
    monkeypatch.setenv(f"{PREFIX}RAY", "true")
    assert run("serve", "--replicas", "2").error == told


def test_every_setting_is_a_flag() -> None:
    names = {parameter.name for parameter in get_command(app).commands["serve"].params}  # type: ignore
    assert set(Settings.model_fields) <= names


def test_check_says_what_would_be_served(run: Run, model: str) -> None:
    done = run("serve", "--check", "--model", model)
    assert (done.code, done.out) == (0, f"{model}  wait-k:3\n")


def test_a_signal_lets_what_is_written_end(model: str) -> None:
    with Forked("serve", "--port", "0", "--model", model) as command:
        told = command.stderr.read(1 << 12).decode()
        while "listening on " not in told or not told.endswith("\n"):
            told += command.stderr.read(1 << 12).decode()
        url = told.partition("listening on ")[2].splitlines()[0]
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            assert client.get(f"{url}/health").json()["status"] == "ok"
        with connect(f"{url.replace('http', 'ws')}/v1/realtime") as client:
            append = {"type": "input_text_buffer.append", "text": "the dog sleeps on a sofa"}
            client.send(json.dumps(append))
            while json.loads(client.recv())["type"] != "response.output_text.delta":
                pass
            command.send_signal(signal.SIGTERM)
            client.send('{"type":"input_text_buffer.commit"}')
            while json.loads(client.recv())["type"] != "response.done":
                pass
            with pytest.raises(ConnectionClosed) as closed:
                client.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        _, log = command.communicate()
        assert command.code == 143
        lines = [json.loads(line) for line in log.decode().splitlines()]
        assert {line["event"] for line in lines} == {
            "session_opened",
            "response_done",
            "session_ended",
        }
        assert "sofa" not in told + log.decode()
