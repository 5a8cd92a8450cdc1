"""`evaluate --ray`: the files are those of one process. Needs Ray: run by `make ray`."""

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import proactivellm.stream.streams
from proactivellm.cli import main
from proactivellm.evaluation.cluster import cluster
from proactivellm.evaluation.evaluate import evaluate, evaluate_by, make_jobs
from proactivellm.evaluation.workers import Workers
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.stream import Job, StreamsFailed

SAMPLE = Path(__file__).parents[2] / "src/proactivellm/assets/tatoeba-sample"
MEASURED = ("elapsed", "first_token_ms", "compute_ms")
POLICIES = ["offline", "wait-k:3", "entropy:laal=3"]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with cluster("this test") as package:
        yield package


@pytest.fixture(scope="module")
def model() -> StreamingCausalLM:
    torch.set_num_threads(1)
    return load("tatoeba-de-en")


@pytest.fixture
def jobs() -> list[Job]:
    german, english = ((SAMPLE / f"test.{name}").read_text().splitlines() for name in ("de", "en"))
    return make_jobs(german[:21], english[:21])


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Callable[[], StreamingCausalLM]:
    """Loads the model where no step takes time, neither here nor there: it enters the log."""
    monkeypatch.setattr(
        proactivellm.stream.streams, "time", SimpleNamespace(perf_counter=lambda: 0.0)
    )

    def load_there() -> StreamingCausalLM:
        import proactivellm.stream.streams as there

        there.time = SimpleNamespace(perf_counter=lambda: 0.0)  # type: ignore[assignment]
        return load("tatoeba-de-en")

    return load_there


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
    return {name: content for name, content in found.items() if not name.endswith(".lock")}


def untimed(line: str) -> dict[str, Any]:
    """A log entry without what was measured."""
    return {key: value for key, value in json.loads(line).items() if key not in MEASURED}


def test_the_files_are_those_of_one_process(
    ray: Any,
    model: StreamingCausalLM,
    jobs: list[Job],
    loader: Callable[[], StreamingCausalLM],
    tmp_path: Path,
) -> None:
    evaluate(model, jobs, POLICIES, tmp_path / "one", num_lanes=4)
    workers = Workers(ray, loader, number=2, num_lanes=4)
    workers.check(model)
    told: list[int] = []
    evaluate_by(
        workers.stream,
        model,
        jobs,
        POLICIES,
        tmp_path / "two",
        progress=lambda _, done, total: told.append(done),
    )
    assert told == [*range(len(jobs) + 1)] * len(POLICIES)
    one = files(tmp_path / "one")
    assert len(one) > 3 * len(POLICIES)
    assert files(tmp_path / "two") == one


def test_a_worker_that_dies_loses_nothing_that_was_finished(
    ray: Any,
    model: StreamingCausalLM,
    jobs: list[Job],
    loader: Callable[[], StreamingCausalLM],
    tmp_path: Path,
) -> None:
    evaluate(model, jobs, ["wait-k:3"], tmp_path / "one")
    workers = Workers(ray, loader, number=2)
    workers.check(model)
    ray.kill(workers._workers[1])
    with pytest.raises(ValueError, match="a worker ended"):
        evaluate_by(workers.stream, model, jobs, ["wait-k:3"], tmp_path / "two")
    del workers
    again = Workers(ray, loader, number=2)
    evaluate_by(again.stream, model, jobs, ["wait-k:3"], tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_what_cannot_be_streamed_is_told(
    ray: Any, model: StreamingCausalLM, tmp_path: Path
) -> None:
    def load_other() -> StreamingCausalLM:
        other = load("tatoeba-de-en")
        other.model.get_input_embeddings().weight.data[0, 0] += 1
        return other

    def load_failing() -> StreamingCausalLM:
        import proactivellm.evaluation.workers as there

        def fail(*_: Any) -> Iterator[Any]:
            raise StreamsFailed("source 0: too long")
            yield

        there.stream_jobs = fail
        return load("tatoeba-de-en")

    with pytest.raises(ValueError, match="no room for 99 workers"):
        Workers(ray, load_other, number=99)
    with pytest.raises(ValueError, match="a worker has another weights than"):
        Workers(ray, load_other, number=1).check(model)
    with pytest.raises(ValueError, match="nobody"):
        Workers(ray, lambda: load("nobody"), number=1).check(model)
    failing = Workers(ray, load_failing, number=1)
    with pytest.raises(ValueError, match="^wait-k:3: source 0: too long$"):
        evaluate_by(failing.stream, model, make_jobs(["Ja."], None), ["wait-k:3"], tmp_path)


def test_the_command(ray: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gc.collect()  # workers that an error of an earlier test still holds
    source, target = tmp_path / "a.de", tmp_path / "a.en"
    source.write_text("Ich habe einen Freund.\nJa.\nWo ist er?\n")
    target.write_text("I have a friend.\nYes.\nWhere is he?\n")
    words = ["--source", str(source), "--target", str(target), "--policy", "wait-k:2"]
    for name, more in (("one", []), ("two", ["--ray", "--workers", "2"])):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *words, "--out", str(tmp_path / name), *more])
        assert ended.value.code == 0, capsys.readouterr().err
    logs = [(tmp_path / name / "wait-k_2/instances.log").read_text() for name in ("one", "two")]
    one, two = ([untimed(line) for line in log.splitlines()] for log in logs)
    assert one == two and len(one) == 3
