"""Thoughts written by a teacher: any model behind an API like OpenAI's chat completions.

The teacher sees the whole text, with a mark after each sentence, and writes as many thoughts, each
with a mark after it, then the deeper stages. What it writes passes the gates or is asked for again
(Pass@2 of StreamingThinker, Tong et al. 2025, arXiv 2510.17238); its own prompts are not used.
"""

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from proactivellm.files.growing import open_lines
from proactivellm.metrics.reasoning import is_right
from proactivellm.tasks.reasoning import gates as judging
from proactivellm.tasks.reasoning.problem import (
    ANSWER,
    DEPTHS,
    END,
    INTEGRATION,
    QUESTION,
    REFLECTION,
    SENTENCE,
    SKIP,
    THOUGHT,
    Problem,
    line_of,
    read_problems,
    read_records,
)
from proactivellm.tasks.reasoning.rows import Dropped

_RULES = f"""A question is read to you, then a text, sentence by sentence. Think aloud meanwhile.
After each sentence that ends with {SENTENCE}, write one short thought that ends with {THOUGHT}:
what the sentence tells, or what follows from it and the sentences before it, towards the answer.
Never use or hint at a later sentence. If the sentence does not matter, write {SKIP}{THOUGHT}.
There have to be exactly as many {THOUGHT} as {SENTENCE}. Use no lists and no formatting."""
_INTEGRATE = (
    f"Then bring together what you found, in one short paragraph that ends with {INTEGRATION}."
)
_REFLECT = f"Then check it again, in one short paragraph that ends with {REFLECTION}."
_FINISH = f"At last write: {ANSWER.format('...')}{END}"
_THINKS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)  # of models that think by themselves


class Teacher(NamedTuple):
    """Who is asked, and how."""

    model: str
    base_url: str | None = None  # None: OPENAI_BASE_URL, else OpenAI's; the key: OPENAI_API_KEY
    depth: int = 3  # of the stages that are asked for
    attempts: int = 2  # for each problem, until one passes
    parallel: int = 4  # requests at once
    per_minute: float | None = None  # requests begun; None = as many as there are
    retries: int = 5  # of a request that the endpoint could not serve, with growing pauses
    temperature: float | None = None  # None: the endpoint's


class Taught(NamedTuple):
    """What became of the problems of a file, those of earlier runs included."""

    kept: list[Problem]
    dropped: Counter[str]  # by the reason of the last attempt

    def lines(self) -> list[str]:
        """As text: how many were kept, then a line for each reason."""
        total = len(self.kept) + self.dropped.total()
        reasons = [f"dropped {count}: {reason}" for reason, count in self.dropped.most_common()]
        return [f"{len(self.kept)} of {total} taught", *reasons]


def teach(
    problems: Sequence[Problem],
    out: str | Path,
    teacher: Teacher,
    gates: judging.Gates = judging.DEFAULT,
    progress: Callable[[str, int, int], None] | None = None,
) -> Taught:
    """Writes the problems with a teacher's thoughts to a file, one by one.

    What `out` and `out`.dropped hold is not asked for again: the same call goes on.

    Args:
        problems: their own thoughts are not used.
        progress: called after every problem.

    Raises:
        ValueError: `out` holds other problems, the package openai is missing, the endpoint cannot
            be reached, or it refuses the key, the model or, after all retries, to serve.
    """
    if teacher.depth not in DEPTHS:
        raise ValueError(f"depth {teacher.depth}: give one of {', '.join(map(str, DEPTHS))}")
    refused = Path(f"{out}.dropped")
    taught = _resume(problems, Path(out), refused)
    done = {problem.id for problem in taught.kept} | set(_ids(refused))
    todo = [problem for problem in problems if problem.id not in done]
    ask = _Asking(teacher, gates) if todo else None
    with (
        open_lines(out, "a") as kept_file,
        open_lines(refused, "a") as dropped_file,
        ThreadPoolExecutor(teacher.parallel) as pool,
    ):
        assert kept_file and dropped_file
        # Results come in order; what is left is called off when one of them fails.
        for number, result in enumerate(pool.map(ask, todo) if ask else (), start=len(done) + 1):
            if isinstance(result, Problem):
                taught.kept.append(result)
                kept_file.write(line_of(result))
                kept_file.flush()
            else:
                name, reason = result
                taught.dropped[reason] += 1
                dropped_file.write(json.dumps({"id": name, "reason": reason}) + "\n")
                dropped_file.flush()
            if progress:
                progress(teacher.model, number, len(problems))
    return taught


def _resume(problems: Sequence[Problem], out: Path, refused: Path) -> Taught:
    """What earlier runs left, without a last line that was cut off."""
    for file in (out, refused):
        if file.exists():
            whole, newline, rest = file.read_bytes().rpartition(b"\n")
            if rest:
                os.truncate(file, len(whole) + len(newline))
    has_some = out.exists() and out.stat().st_size
    kept = read_problems(out) if has_some else []
    reasons = [row["reason"] for _, row in read_records(refused)] if refused.exists() else []
    known = {problem.id for problem in problems}
    for name in [*(problem.id for problem in kept), *_ids(refused)]:
        if name not in known:
            raise ValueError(
                f"{out}: holds the problem {name!r}, which is not one of these: give another file"
            )
    return Taught(kept, Counter(reasons))


def _ids(refused: Path) -> list[str]:
    return [row["id"] for _, row in read_records(refused)] if refused.exists() else []


class _Asking:
    """Asks a teacher for the thoughts of a problem; from several threads."""

    def __init__(self, teacher: Teacher, gates: judging.Gates) -> None:
        try:
            import openai
        except ImportError:
            raise ValueError("a teacher needs the package openai: pip install openai") from None
        self.openai, self.teacher, self.gates = openai, teacher, gates
        key = os.environ.get("OPENAI_API_KEY") or ("none" if teacher.base_url else None)
        try:
            self.client = openai.OpenAI(
                base_url=teacher.base_url, api_key=key, max_retries=teacher.retries
            )
        except openai.OpenAIError as error:
            raise ValueError(f"no teacher: {_first_line(error)}") from None
        self.turn = threading.Lock()
        self.next_s = 0.0  # when the next request may begin

    def __call__(self, problem: Problem) -> Problem | tuple[str, str]:
        """The problem with new thoughts, or its id with the reason why the last attempt failed."""
        reason = ""
        for _ in range(self.teacher.attempts):
            try:
                found = parse_reply(self._ask(problem), problem, self.teacher.depth)
            except Dropped as error:
                reason = str(error)
                continue
            failed = self.gates.failed(found)
            if not failed:
                return found
            reason = failed[0]
        return problem.id, reason

    def _ask(self, problem: Problem) -> str:
        self._wait()
        extra: dict[str, Any] = {}
        if self.teacher.temperature is not None:
            extra["temperature"] = self.teacher.temperature
        try:
            answer = self.client.chat.completions.create(
                model=self.teacher.model, messages=messages(problem, self.teacher.depth), **extra
            )
        except (self.openai.BadRequestError, self.openai.UnprocessableEntityError):
            raise Dropped("the endpoint refuses the problem") from None
        except self.openai.OpenAIError as error:
            raise ValueError(
                f"the teacher at {self.client.base_url} failed: {_first_line(error)}; what is done "
                "is kept, and the same command goes on"
            ) from None
        if not answer.choices or answer.choices[0].finish_reason == "length":
            raise Dropped("the reply was cut off")
        return answer.choices[0].message.content or ""

    def _wait(self) -> None:
        """Waits for a turn, so that requests begin at most as often as they may."""
        if self.teacher.per_minute:
            with self.turn:
                begin_s = max(self.next_s, time.monotonic())
                self.next_s = begin_s + 60 / self.teacher.per_minute
            time.sleep(max(0.0, begin_s - time.monotonic()))


def messages(problem: Problem, depth: int) -> list[Any]:
    """What a teacher is asked, as messages of chat completions."""
    rules = (_RULES, *(_INTEGRATE, _REFLECT)[: depth - 1], _FINISH)
    text = "\n".join(f"{sentence}{SENTENCE}" for sentence in problem.sentences)
    return [
        {"role": "system", "content": "\n".join(rules)},
        {"role": "user", "content": f"{problem.question}{QUESTION}\n{text}"},
    ]


def parse_reply(reply: str, problem: Problem, depth: int) -> Problem:
    """A problem with the thoughts and stages of a teacher's reply.

    Raises:
        Dropped: the thoughts are not as many as the sentences, a stage is missing, a mark is out of
            place, or the answer is wrong.
    """
    *thoughts, rest = _THINKS.sub("", reply).split(THOUGHT)
    if len(thoughts) != len(problem.sentences):
        raise Dropped("granularity")
    stages = []
    for mark in (INTEGRATION, REFLECTION)[: depth - 1]:
        stage, found, rest = rest.partition(mark)
        if not found or not stage.strip():
            raise Dropped("a stage is missing")
        stages.append(" ".join(stage.split()))
    if not is_right(rest.partition(END)[0], [problem.answer]):
        raise Dropped("the answer is wrong")
    told = [" ".join(thought.replace(SKIP, "").split()) for thought in thoughts]
    integration, reflection = (*stages, "", "")[:2]
    changed = {"thoughts": told, "integration": integration, "reflection": reflection}
    try:
        return Problem.model_validate(problem.model_dump() | changed)
    except ValueError:
        raise Dropped("a mark is out of place") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
