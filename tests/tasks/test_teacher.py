"""Thoughts from a teacher: a small server that replies as it is told stands for the endpoint."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from proactivellm.tasks.reasoning.problem import Problem, read_problems
from proactivellm.tasks.reasoning.rows import Dropped
from proactivellm.tasks.reasoning.teacher import Teacher, messages, parse_reply, teach

GOOD = "Anna has 2 eggs.<EOT> <skip><EOT>\nSo 2.<EOR> Check: 2.<EOF>The answer is 2.<EOA>"


def problem(name: str) -> Problem:
    return Problem(
        id=name,
        question="How many eggs does Anna have?",
        sentences=("Anna has 2 eggs.", f"Bert is {name}."),
        answer="2",
        needed=(True, False),
    )


class Endpoint:
    """Replies to chat completions; `replies` are taken one after another, the last one stays."""

    def __init__(self) -> None:
        self.replies: list[str | int] = [GOOD]  # a number is the status of an error
        self.asked: list[dict[str, Any]] = []
        self.lock = Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with endpoint.lock:
                    endpoint.asked.append({"path": self.path, **json.loads(body)})
                    reply = endpoint.replies[0]
                    if len(endpoint.replies) > 1:
                        del endpoint.replies[0]
                self.send_response(reply if isinstance(reply, int) else 200)
                content = json.dumps(endpoint.answer(reply)).encode()
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Content-Type", "application/json")
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @staticmethod
    def answer(reply: str | int) -> dict[str, Any]:
        if isinstance(reply, int):
            return {"error": {"message": f"error {reply}"}}
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": "m"} | {
            "choices": [choice]
        }


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    thread = Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_reply_becomes_thoughts_and_stages() -> None:
    found = parse_reply(f"<think>Hm.<EOT></think>{GOOD}", problem("a"), 3)
    assert found.thoughts == ("Anna has 2 eggs.", "") and found.needed == (True, False)
    assert (found.integration, found.reflection) == ("So 2.", "Check: 2.")
    system, user = (message["content"] for message in messages(problem("a"), 2))
    assert "<EOR>" in system and "<EOF>" not in system
    assert user.startswith("How many eggs does Anna have?<EOQ>\nAnna has 2 eggs.<EOS>\nBert")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Anna has 2 eggs.<EOT>So 2.<EOR>So.<EOF>The answer is 2.", "granularity"),
        ("a<EOT>b<EOT>The answer is 2.", "a stage is missing"),
        ("a<EOT>b<EOT>c<EOR>d<EOF>The answer is 3.", "the answer is wrong"),
        ("a<EOS><EOT>b<EOT>c<EOR>d<EOF>The answer is 2.", "a mark is out of place"),
    ],
)
def test_a_reply_that_breaks_the_protocol_is_refused(reply: str, reason: str) -> None:
    with pytest.raises(Dropped, match=reason):
        parse_reply(reply, problem("a"), 3)


def test_a_teacher_is_asked_again_and_a_run_goes_on(tmp_path: Path, endpoint: Endpoint) -> None:
    out = tmp_path / "out.jsonl"
    teacher = Teacher("m", endpoint.url, parallel=1, per_minute=60_000, temperature=0.5)
    leak = GOOD.replace("Anna has 2 eggs.", "Bert is here.")
    endpoint.replies = [500, leak, GOOD, "no", leak, GOOD]  # a retry, Pass@2, none passes, at once
    problems = [problem(name) for name in ("tall", "old", "kind")]
    told: list[tuple[Any, ...]] = []
    taught = teach(problems, out, teacher, progress=lambda *args: told.append(args))
    assert [p.id for p in taught.kept] == ["tall", "kind"] and taught.dropped == {"leaks": 1}
    assert told == [("m", 1, 3), ("m", 2, 3), ("m", 3, 3)] and len(endpoint.asked) == 6
    assert endpoint.asked[0]["path"] == "/v1/chat/completions"
    assert endpoint.asked[0]["temperature"] == 0.5 and endpoint.asked[0]["model"] == "m"
    with out.open("a") as file:
        file.write('{"id": "cut')  # what a kill leaves
    again = teach([*problems, problem("new")], out, teacher)
    assert len(endpoint.asked) == 7 and [p.id for p in read_problems(out)] == [
        *("tall", "kind", "new")
    ]
    assert again.lines() == ["3 of 4 taught", "dropped 1: leaks"]
    with pytest.raises(ValueError, match="holds the problem 'kind', which is not one of these"):
        teach(problems[:2], out, teacher)


@pytest.mark.parametrize(("status", "asked"), [(401, 1), (503, 2)])
def test_an_endpoint_that_does_not_serve_ends_the_run_in_one_line(
    tmp_path: Path, endpoint: Endpoint, status: int, asked: int
) -> None:
    endpoint.replies = [status]
    with pytest.raises(ValueError, match=f"failed: .*{status}.*; what is done is kept") as failed:
        teach([problem("a")], tmp_path / "out.jsonl", Teacher("m", endpoint.url, retries=1))
    assert len(endpoint.asked) == asked and "\n" not in str(failed.value)


def test_requests_begin_no_faster_than_they_may(tmp_path: Path, endpoint: Endpoint) -> None:
    import time

    begin_s = time.monotonic()
    teacher = Teacher("m", endpoint.url, per_minute=600)
    teach([problem(name) for name in ("a", "b", "c")], tmp_path / "out.jsonl", teacher)
    assert time.monotonic() - begin_s >= 0.2


def test_a_problem_that_the_endpoint_refuses_is_dropped(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.replies = [400]
    taught = teach([problem("a")], tmp_path / "out.jsonl", Teacher("m", endpoint.url))
    assert taught.dropped == {"the endpoint refuses the problem": 1}
