"""Sources are the same for the same seed; lanes are never idle and never go in step."""

from itertools import islice
from pathlib import Path

import torch
from tests.bench.benches import tiny_bench
from tests.models import save_tiny

from proactivellm.bench.workload import Crowd, Endless, drawn_work, text_work
from proactivellm.modality.loading import load
from proactivellm.policy.fixed import WaitK
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Streams


def test_drawn_streams_are_text_and_follow_the_seed() -> None:
    model = tiny_bench().model
    first, again, other = (list(islice(drawn_work(model, 9, 5, s), 2)) for s in (1, 1, 2))
    assert first == again != other and first[0] != first[1]
    units = first[0].units
    assert [unit.final for unit in units] == [False] * 8 + [True]
    control = set(model.tokenizer.added_tokens_decoder)
    assert control and not any(control & set(unit.token_ids) for unit in units)


def test_a_stream_cut_is_a_whole_stream() -> None:
    (work,) = islice(drawn_work(tiny_bench().model, 9, 5, 0), 1)
    cut = work.cut(0.5)
    assert len(cut.units) == 5 and cut.units[-1].final and cut.num_tokens == 3
    assert len(work.cut(1e-9).units) == work.cut(1e-9).num_tokens == 1
    assert work.cut(1.0) == work


def test_real_text_has_no_given_length(tmp_path: Path) -> None:
    folder = save_tiny("qwen3", tmp_path / "model")
    model = load(folder)
    works = list(islice(text_work(model, 0), 30))
    assert all(work.units[-1].final and work.num_tokens is None for work in works)
    assert len({len(work.units) for work in works}) > 3


def test_endless_targets_have_no_end(tmp_path: Path) -> None:
    model = load(save_tiny("qwen3", tmp_path / "model"))
    (end,) = model.end_token_ids
    model.model.get_output_embeddings().register_forward_hook(
        lambda module, args, logits: logits.index_fill(-1, torch.tensor(end), 1e9)
    )
    written = []
    for streaming in (model, Endless(model)):
        engine = Engine(streaming, WaitK(k=2), sampling=Sampling())
        lane = engine.open()
        engine.push(lane, next(drawn_work(streaming, 2, 9, 0)).units)
        while engine.state(lane).num_written < 9 and engine.step() is not None:
            pass
        written.append(engine.state(lane).delays)
    assert written == [[2], [2] * 9]
    assert Endless(model).settings.boundary == "token" != model.settings.boundary


def test_every_lane_writes_in_every_step() -> None:
    model = tiny_bench().model
    streams = Streams(model, WaitK(k=3), Limits(streams=5), sampling=Sampling())
    crowd = Crowd(streams, drawn_work(model, 12, 12, 0))
    crowd.settle()
    assert crowd.num_ended >= 5
    written = [streams.engine.state(lane).num_written for lane in range(5)]
    assert len(set(written)) > 2  # phases differ
    fed, ended = crowd.total_fed(), crowd.num_ended
    assert [crowd.step() for _ in range(24)] == [5] * 24
    assert crowd.num_ended - ended == 5 * 2
    # A stream feeds the prompt (3), its units and all tokens but the last.
    assert crowd.total_fed() - fed == 5 * 2 * (3 + 12 + 11)
