"""The law for any layout and any groups, fed through `model.step`.

Pieces come in the order of arrival, in steps of any size; the probe is on any row, some rows are
fed early and taken back, and several lanes run at once.

What the engine drives (source and target, probe on the last row) is in test_streaming_law.py.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import pytest
import torch
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.laws.streams import TOLERANCE, gap
from tests.models import FAMILIES
from torch import Tensor

from proactivellm.core import schedule
from proactivellm.core.layout import LAYOUTS, Layout, make_layout
from proactivellm.core.packing import IGNORE, Sample, View, Written, pack
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import LaneInput, Piece, StepOutput
from proactivellm.train.views import collate

Folder = Callable[..., Path]
NUM_UNITS = 6
FAILS = 1e-2
INTERLEAVED = "interleaved-thoughts"


def load(folder: Path) -> StreamingCausalLM:
    """Not a recorder, which knows of sources and targets alone."""
    model = streams.load(folder)
    return StreamingCausalLM(model.model, model.tokenizer, model.settings)


def a_sample(model: StreamingCausalLM, layout: Layout, seed: int) -> tuple[Sample, View]:
    """A prompt, six units, and a text for every other group of the layout, each at its own pace."""
    size, rng = len(model.tokenizer), random.Random(seed)
    units = [list(model.prompt.source_head), *streams.random_units(NUM_UNITS, size, seed)]
    written, view = {}, {}
    for number, name in enumerate(layout.groups[1:], start=1):
        ids = streams.random_ids(9, size, 10 * seed + number)
        written[name] = Written(head=ids[: rng.randrange(1, 3)], tokens=ids[2:])
        g = [rng.randrange(1, NUM_UNITS + 1)] * 7
        if not layout.reencoded:
            g = sorted(rng.randrange(1, NUM_UNITS + 1) for _ in range(7))
        schedule.validate(g, NUM_UNITS)
        view[name] = g
    return Sample(read={"source": units}, written=written), view


@dataclass(frozen=True)
class Row:
    token: int
    group: str
    unit: int
    number: int  # among the rows that predict, -1: it does not


def rows_of(sample: Sample, view: View, layout: Layout) -> list[Row]:
    """All tokens of a sample, in the order of their arrival."""
    packed = pack(sample, [view], layout)
    groups = len(layout.groups)
    numbers = iter(range(len(packed.label)))
    rows = [
        Row(
            packed.input_ids[i],
            layout.groups[packed.group[i]],
            0 if packed.group[i] else (packed.arrival[i] >> 32) // groups,
            -1 if packed.label[i] == IGNORE else next(numbers),
        )
        for i in range(len(packed.label))
    ]
    return [rows[i] for i in sorted(range(len(rows)), key=packed.arrival.__getitem__)]


@dataclass
class Lane:
    rows: list[Row]
    at: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    logits: dict[int, Tensor] = field(default_factory=dict)

    def next_step(self, number: int, rng: random.Random) -> tuple[LaneInput, int, int]:
        """What to feed, how many rows of it stay, and which row's logits are asked for."""
        step = self.rows[self.at : self.at + rng.choice((1, 1, 1, 2, 4))]
        stay, later = len(step), self.rows[self.at + len(step) :]
        predicting = [i for i, row in enumerate(step) if row.number >= 0]
        probe, wanted = None, -1
        written = next((row for row in later if row.group != "source"), None)
        if written and rng.random() < 0.3:  # looked at before it is its turn, and taken back
            step, probe = [*step, written], -1
        elif predicting and rng.random() < 0.8:
            probe = rng.choice(predicting)
            wanted = step[probe].number
        pieces = [
            Piece(group, unit, [row.token for row in run])
            for (group, unit), run in groupby(step, key=lambda row: (row.group, row.unit))
        ]
        counts = {**self.counts}
        return LaneInput(lane=number, pieces=pieces, counts=counts, probe=probe), stay, wanted

    def settle(self, stay: int) -> None:
        for row in self.rows[self.at : self.at + stay]:
            self.counts[row.group] = self.counts.get(row.group, 0) + 1
        self.at += stay


def stream(model: StreamingCausalLM, lanes: list[Lane], seed: int) -> None:
    """Feed all rows of all lanes, some lanes in each step."""
    rng = random.Random(seed)
    cache = model.new_cache(len(lanes))
    while waiting := [i for i, lane in enumerate(lanes) if lane.at < len(lane.rows)]:
        chosen = rng.sample(waiting, rng.randrange(1, len(waiting) + 1))
        steps = [(i, *lanes[i].next_step(i, rng)) for i in chosen]
        output = model.step(cache, [step for _, step, _, _ in steps])
        probing = [(i, wanted) for i, step, _, wanted in steps if step.probe is not None]
        for row, (i, wanted) in enumerate(probing):
            if wanted >= 0:
                assert output is not None
                lanes[i].logits[wanted] = output.logits_PV[row]
        for i, _, stay, _ in steps:
            lanes[i].settle(stay)
            cache.lengths[i] = lanes[i].at


def worst_gap(model: StreamingCausalLM, layout: Layout, seed: int, expected_under: Layout) -> float:
    """Of three lanes, fed twice in other steps."""
    model.layout = layout
    samples = [a_sample(model, layout, seed + lane) for lane in range(3)]
    expected = []
    for sample, view in samples:
        batch = collate([pack(sample, [view], expected_under)])
        expected.append(streams.masked_logits_of(model, batch, expected_under)[0])
    gaps, seen = [], 0
    for again in range(2):
        lanes = [Lane(rows_of(sample, view, layout)) for sample, view in samples]
        stream(model, lanes, 100 * seed + again)
        for lane, expected_NV in zip(lanes, expected, strict=True):
            gaps += [gap(logits, expected_NV[t]) for t, logits in lane.logits.items()]
            seen += len(lane.logits)
    assert seen > sum(len(each) for each in expected) / 2, "many rows should be asked for"
    return max(gaps)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *((family, name) for family in FAMILIES for name in LAYOUTS if name != INTERLEAVED),
        *((family, INTERLEAVED) for family in ("qwen3", "gemma3_text")),
    ],
)
def test_any_groups_in_any_order_and_the_probe_on_any_row(
    folder_of: Folder, family: str, name: str
) -> None:
    model = load(folder_of(family))
    layout = make_layout(name, phi=5)
    assert worst_gap(model, layout, 3, layout) <= TOLERANCE


@pytest.mark.parametrize("name", LAYOUTS)
def test_in_fixed_shapes(folder_of: Folder, name: str) -> None:
    model = load(folder_of("gemma3_text"))
    model.accelerate("graph")
    layout = make_layout(name, phi=5)
    assert worst_gap(model, layout, 4, layout) <= TOLERANCE


@pytest.mark.parametrize("name", LAYOUTS)
def test_in_one_attention_of_all_lanes(tmp_path: Path, name: str) -> None:
    save_random("falcon", OBEYING["falcon"], tmp_path)
    model = load(tmp_path)
    assert model.joint
    layout = make_layout(name, phi=5)
    assert worst_gap(model, layout, 5, layout) <= TOLERANCE


def test_a_fourth_group_is_one_more_row(folder_of: Folder) -> None:
    """Results of tools, which the target sees and the thoughts do not."""
    model = load(folder_of("qwen3"))
    four = Layout(
        name="tools",
        groups=("source", "tool", "thought", "target"),
        attends=(
            (True, False, False, False),
            (True, True, False, False),
            (True, False, True, False),
            (True, True, True, True),
        ),
        counter=(0, 1, 2, 2),
        offset=(0, 30, 5, 5),
    )
    assert worst_gap(model, four, 6, four) <= TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"counter": (0, 1, 2)},
        {"offset": (0, 5, 6)},
        {"attends": ((True, False, False), (True, True, False), (True, True, True))},
        {"attends": ((True, True, False), (True, True, True), (True, True, True))},
        {"attends": ((True, False, False), (True, True, True), (True, False, True))},
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_another_table_counter_or_offset_is_far_from_it(folder_of: Folder, change: dict) -> None:
    model = load(folder_of("qwen3"))
    layout = make_layout("thoughts", phi=5)
    assert worst_gap(model, layout, 3, replace(layout, **change)) > FAILS


def attending(model: StreamingCausalLM, lanes: list[LaneInput]) -> StepOutput:
    output = model.step(model.new_cache(len(lanes)), lanes, attention=True)
    assert output is not None
    return output


@pytest.mark.parametrize("mode", [None, "graph"])
def test_attention_is_that_of_the_row_that_probes(folder_of: Folder, mode: None | str) -> None:
    """Alone and beside lanes that probe elsewhere: what stands after the row is not seen."""
    model = load(folder_of("qwen3"))
    model.layout = make_layout("thoughts")
    read, thought = Piece("source", 1, [20, 21, 22]), Piece("thought", 0, [30, 31])
    more = Piece("source", 2, [40, 41])
    lanes = [
        LaneInput(lane=0, pieces=[read, thought, more], probe=4),
        LaneInput(lane=1, pieces=[read, thought], probe=-1),
        LaneInput(lane=2, pieces=[read]),
        LaneInput(lane=3, pieces=[thought, read, thought], probe=1),
    ]
    alone = attending(model, [replace(lanes[1], lane=0)])
    model.accelerate(mode)  # type: ignore[arg-type]
    together = attending(model, lanes)
    assert alone.weights_LPHK is not None and together.weights_LPHK is not None
    assert together.unit_PK is not None
    for row in (0, 1):
        assert gap(together.logits_PV[row], alone.logits_PV[0]) <= TOLERANCE
        weights = together.weights_LPHK[:, row]
        torch.testing.assert_close(weights[..., :5], alone.weights_LPHK[:, 0])
        assert not weights[..., 5:].any()
    assert together.unit_PK[0, :7].tolist() == [1, 1, 1, 0, 0, 2, 2]
    assert not together.weights_LPHK[:, 2, :, 2:].any(), "it came first"


def reading_ahead(model: StreamingCausalLM, layout: Layout, keeps_horizon: bool = True) -> float:
    """Gap of thoughts of two tokens each, of which the first reads the next unit as it is fed.

    The second may not see it: its view ends at the unit thought about, the horizon.
    """
    model.layout = layout
    source = streams.random_units(5, len(model.tokenizer), seed=1)
    head, tokens = [9], streams.random_ids(10, len(model.tokenizer), seed=2)
    cache, counts, logits = model.new_cache(), {"source": 0, "thought": 0}, []
    fed, read = [head[0], *tokens], [Piece("source", 1, source[0])]
    for t in range(len(tokens)):
        unit, begins = 1 + t // 2, t % 2 == 0
        ahead = [Piece("source", unit + 1, ids) for ids in source[unit : unit + 1] if begins]
        pieces = [*read, Piece("thought", 0, [fed[t]]), *ahead]
        row = sum(len(piece.tokens) for piece in read)
        horizon = unit if keeps_horizon else None
        step = LaneInput(lane=0, pieces=pieces, counts={**counts}, probe=row, horizon=horizon)
        output = model.step(cache, [step])
        assert output is not None
        logits.append(output.logits_PV[0])
        for group in counts:
            counts[group] += step.added.get(group, 0)
        cache.lengths[0] = sum(counts.values())
        read = []
    sample = Sample(
        read={"source": [[], *source]}, written={"thought": Written(head=head, tokens=tokens)}
    )
    g = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    batch = collate([pack(sample, [{"thought": g}], layout)])
    expected = streams.masked_logits_of(model, batch, layout)[0]
    return gap(torch.stack(logits), expected)


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "falcon"])
def test_a_lane_reads_on_in_the_forward_in_which_it_thinks(
    folder_of: Folder, tmp_path: Path, family: str
) -> None:
    """One forward for each token that is written, and none for the units that are read."""
    folder = tmp_path
    if family == "falcon":  # one attention for all lanes
        save_random("falcon", OBEYING["falcon"], tmp_path)
    else:
        folder = folder_of(family)
    model, layout = load(folder), make_layout("thoughts", phi=7)
    model.accelerate(None if model.joint else "graph")  # what is read ahead has no fixed shape
    assert reading_ahead(model, layout) <= TOLERANCE
    assert reading_ahead(model, layout, keeps_horizon=False) > FAILS
