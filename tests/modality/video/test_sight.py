"""Bounded sight: a stream sees the last chunks of a video, and those that are like the question."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.video_models import save_tiny_watcher

from proactivellm import load, parse_policy
from proactivellm.cli import main
from proactivellm.core.layout import LAYOUTS, SOURCE
from proactivellm.core.masks import visibility
from proactivellm.core.packing import MEDIA_ID, Sample, Written, pack
from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.forward.packed import as_tensors, masked_hidden
from proactivellm.session.limits import Limits, Sight
from proactivellm.session.session import Session
from proactivellm.session.window import Window

from .clips import write_clip
from .looking import seen

QUESTION = [7, 8, 9]
GRID = Grid(2, 3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher"))


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


def chunks(num, seed=0):
    """Units of two moments, of which some places are dropped; the third keeps nothing."""
    rng = torch.Generator().manual_seed(seed)
    grids = [GRID._replace(moments=2, kept=(0, 1, 2, 5, 7)) for _ in range(num)]
    grids[2] = grids[2]._replace(kept=())
    features = [torch.randn(grid.size, 32, generator=rng) for grid in grids]
    return [Unit(features=f, grid=g) for f, g in zip(features, grids, strict=True)]


def like(model, unit):
    """Cosine of the mean of a unit and the mean of the question, by hand."""
    if not unit.grid.seen:
        return -2.0
    asked = model.parts.embed(torch.tensor(QUESTION)).detach().mean(0).numpy()
    mean = unit.features[unit.grid.rows_in_space(), :32].mean(0).numpy()
    return float(mean @ asked / np.linalg.norm(mean) / np.linalg.norm(asked))


def streamed(model, units, sight, policy="wait-k:1", asks_first=True):
    """A session that read the units one by one, and the logits of each row that it settled."""
    rows, step = {}, model.step

    def noting(cache, inputs, attention=False):
        output = step(cache, inputs, attention)
        if output is not None:
            (lane,) = inputs
            rows[lane.counts["target"] + lane.added["target"]] = output.logits_PV[0].clone()
        return output

    session = Session(model, parse_policy(policy), limits=Limits(sight=sight))
    if asks_first:
        session.ask(QUESTION)
    model.step = noting
    try:
        for unit in units:
            session.push(unit)
    finally:
        del model.step
    return session, rows


def expected(model, units, state, sight):
    """Logits of the rows that predict what was written: one forward, whose mask is made here."""
    places = [[MEDIA_ID] * unit.grid.size for unit in units]
    num_head = len(model.prompt.target_head)
    written = Written(head=state.target[:num_head], tokens=state.target[num_head:])
    sample = Sample(
        read={"source": [model.prompt.opening(QUESTION), *places]},
        written={"target": written},
        grids={number: unit.grid for number, unit in enumerate(units, 1)},
    )
    packed = pack(sample, [{"target": state.delays}], model.layout)
    columns = as_tensors([packed])
    mask = visibility(model.layout, columns, columns)[0, 0]
    groups = len(model.layout.groups)
    unit_S = [stamp // groups for stamp in (columns["arrival"][0] >> 32).tolist()]
    is_source = (columns["group"][0] == model.layout.index[SOURCE]).tolist()
    best = sorted(range(1, len(units) + 1), key=lambda u: -like(model, units[u - 1]))
    for q in range(len(mask)):
        read = unit_S[q] - is_source[q]
        recalled = [u for u in best if u <= read and u != 3][: sight.recall]
        for k in range(len(mask)):
            near = unit_S[k] > read - sight.units
            again = unit_S[k] in recalled and not is_source[q]
            if is_source[k] and unit_S[k] and not near and not again:
                mask[q, k] = False
    media = torch.cat([unit.features for unit in units])
    hidden = masked_hidden(model, columns, mask[None, None], [media])[0]
    is_target = [place for place, source in enumerate(is_source) if not source]
    return model.parts.project(hidden[is_target[num_head - 1 :]])


@pytest.mark.parametrize("layout", ["grouped", "interleaved", "overlapped"])
@pytest.mark.parametrize("sight", [Sight(units=2), Sight(units=1, recall=2)])
@torch.inference_mode()
def test_the_law(model, layout, sight):
    """What left the cache, and what came back, is as in one masked forward."""
    before, model.layout = model.layout, LAYOUTS[layout]()
    try:
        units = chunks(7)
        session, rows = streamed(model, units, sight)
        state = session.state
        wanted = expected(model, units, state, sight)
    finally:
        model.layout = before
    first = len(model.prompt.target_head)
    found = torch.stack([rows[first + t] for t in range(len(state.delays))])
    assert len(found) >= 7 and set(state.delays) >= {1, 4, 7}
    assert state.counts["source"] < sum(unit.grid.size for unit in units)
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    session._engine.check_integrity()


@torch.inference_mode()
def test_the_law_with_text_around_moments(tmp_path):
    """Qwen3-VL: what later layers see leaves and comes back with its unit, and so does the text."""
    model = load(save_tiny_watcher(tmp_path, family="qwen3_vl"))
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (14, 60, 88, 3), dtype=np.uint8)
    frames[4:6] = frames[2:4]  # the third moment keeps nothing
    model.front_end.watch(drop_tokens="feature:0.999")
    *units, _ = seen(model, frames, (14,))
    sight = Sight(units=1, recall=2)
    session, rows = streamed(model, units, sight)
    wanted = expected(model, units, session.state, sight)
    first, num_rows = len(model.prompt.target_head), len(session.state.delays)
    found = torch.stack([rows[first + t] for t in range(num_rows)])
    assert len(found) >= 7 and (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@torch.inference_mode()
def test_a_needle_beyond_sight_is_recalled(model):
    """In two layers a token depends on two chunks before it, and not on the second of eight."""
    asked = model.parts.embed(torch.tensor(QUESTION)).mean(0)
    units = chunks(8)
    rows = {}
    for sight in (Sight(units=1), Sight(units=1, recall=1)):
        for sign in (0, 1):
            needle = 3 * asked + 0.1 * torch.randn(
                5, 32, generator=torch.Generator().manual_seed(sign)
            )
            hidden = [*units[:1], Unit(features=needle, grid=units[1].grid), *units[2:]]
            _, found = streamed(model, [*hidden, Unit.end()], sight, "offline")
            rows[sight.recall, sign] = found[len(model.prompt.target_head)]
    assert torch.equal(rows[0, 0], rows[0, 1])
    assert (rows[1, 0] - rows[1, 1]).abs().max() > 1e-3 * rows[1, 0].abs().max()


@torch.inference_mode()
def test_a_question_of_later_stays_in_sight_and_recalls(model):
    """Asked after the fourth of eight chunks: the second, out of sight, is what is like it."""
    embedded = model.parts.embed(torch.tensor(QUESTION)).mean(0)
    units = [replace(unit, holds=number < 4) for number, unit in enumerate(chunks(8))]
    for recall, beyond in ((0, "dropped"), (0, "host"), (1, "host")):
        sight, found = Sight(units=1, recall=recall, beyond=beyond), []
        # The needle differs, or the question by a token of which it looks almost the same.
        for sign, ids in ((0, QUESTION), (1, QUESTION), (0, [*QUESTION, 10])):
            noise = torch.randn(5, 32, generator=torch.Generator().manual_seed(sign))
            needle = Unit(features=3 * embedded + 0.1 * noise, grid=units[1].grid, holds=True)
            asked = Unit("what", ids, asks=True)
            read = [units[0], needle, *units[2:4], asked, *units[4:], Unit.end()]
            session, rows = streamed(model, read, sight, "offline", asks_first=False)
            session._engine.check_integrity()
            found.append(rows[len(model.prompt.target_head)])
        assert torch.equal(found[0], found[1]) == (recall == 0)
        assert (found[0] - found[2]).abs().max() > 1e-3 * found[0].abs().max()


@torch.inference_mode()
def test_memory_does_not_grow(model):
    """From chunk 10 to chunk 200 nothing does, and positions go on."""
    sight, sizes = Sight(units=4, beyond="dropped"), []
    session = Session(model, parse_policy("offline"), limits=Limits(sight=sight))
    cache = session._engine.cache
    for number in range(1, 201):
        session.push(Unit(features=torch.ones(6, 32), grid=GRID))
        if number in (10, 200):
            sizes.append((cache.num_entries, cache.lengths[0], len(session.state.source)))
    assert sizes[0] == sizes[1] and sizes[0][1] == len(model.prompt.source_head) + 5 * 6
    last = int(cache.entry_kinds(0)[1].max())
    assert last == len(model.prompt.source_head) + 199 * GRID.step
    assert session._engine.admission.horizon._past[0].away == {}


def test_what_does_not_go_together(model):
    policy = parse_policy("offline")
    with pytest.raises(ValueError, match="neither a window nor"):
        Session(model, policy, window=Window(), limits=Limits(sight=Sight(units=1)))
    with pytest.raises(ValueError, match="cannot be recalled"):
        Sight(units=1, recall=1, beyond="dropped")
    session = Session(model, policy, limits=Limits(sight=Sight(units=1, recall=1)))
    with pytest.raises(ValueError, match="cannot be saved"):
        session.save("session")
    with pytest.raises(ValueError, match="like a question: ask one"):
        session.push([*chunks(3), Unit.end()])


def test_the_command(folder, tmp_path, capfd):
    clip = write_clip(tmp_path / "a.mp4", [n / 2 for n in range(16)], size=(60, 88))
    command = ["stream", "--model", str(folder), "--input", str(clip), "--recall-chunks", "1"]
    bounded = [*command, "--attend-chunks", "1", "--chunk", "2"]
    for given, code in ((command, 2), (bounded, 2), ([*bounded, "--question", "who?"], 0)):
        with pytest.raises(SystemExit) as ended:
            main(given)
        assert int(ended.value.code or 0) == code
    told = capfd.readouterr()
    assert "--attend-chunks" in told.err and "give --question" in told.err and told.out.strip()


def test_evaluate_looks_at_a_video_as_stream_does(folder, tmp_path, capfd):
    clip = write_clip(tmp_path / "a.mp4", [n / 2 for n in range(16)], size=(60, 88))
    asked = {"video": str(clip), "question": "who?", "text": "a"}
    (tmp_path / "sets.jsonl").write_text(json.dumps(asked) + "\n")
    looking = ["--drop-tokens", "feature:0.9", "--attend-chunks", "1", "--recall-chunks", "1"]
    common = ["--model", str(folder), "--policy", "wait-k:2", *looking]
    streamed = ["stream", "--input", str(clip), "--question", "who?", *common]
    evaluated = ["evaluate", "--source", str(tmp_path / "sets.jsonl"), "--task", "qa", *common]
    evaluated += ["--out", str(tmp_path / "out")]
    log = tmp_path / "stream.log"
    other = [*evaluated, "--chunk", "2"]
    text = tmp_path / "lines.txt"
    text.write_text("a\n")
    of_text = ["evaluate", "--source", str(text), "--out", str(tmp_path / "text"), *common]
    for given, code in ((evaluated, 0), ([*streamed, "--log", str(log)], 0), (other, 2)):
        with pytest.raises(SystemExit) as ended:
            main(given)
        assert int(ended.value.code or 0) == code
    with pytest.raises(SystemExit):
        main(of_text)
    told = capfd.readouterr().err
    assert "--drop-tokens is for video" in told and "another run" in told
    (row,) = [json.loads(line) for line in next((tmp_path / "out").glob("*/instances.log")).open()]
    (same,) = [json.loads(line) for line in log.open()]
    assert row["prediction"] == same["prediction"] and row["delays"] == same["delays"]
    noted = json.loads(next((tmp_path / "out").glob("*/run.json")).read_text())
    assert noted["sight"] == {"units": 1, "recall": 1, "beyond": "host"}
    assert noted["drop_tokens"] == "feature:0.9"
