"""The attention probe: the weights of the model itself, summed over source units."""

from pathlib import Path

import pytest
import torch
from tests.families import OBEYING, VOCAB_SIZE, additive, save_random
from tests.laws import streams
from tests.laws.streams import TOLERANCE, Recorder, gap
from tests.models import FAMILIES, save_tiny
from tests.two_groups import lane_input, views_of

from proactivellm.core.masks import layer_masks, visibility
from proactivellm.core.packing import pack
from proactivellm.forward.attention import ATTENTION
from proactivellm.forward.probe import unit_attention, unit_attention_by_head
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.session import Session

FULL_WIDTH = ("gemma2", "gpt_oss", "cohere")


def load(name: str, folder: Path, layout: str = "grouped") -> Recorder:
    if name in OBEYING:
        save_random(name, OBEYING[name], folder)
    else:
        save_tiny(name, folder)
    return streams.load(folder, layout=layout, phi=6 if layout == "grouped" else 0)


def pieces(model: Recorder, source: list[list[int]]) -> list[tuple[int, tuple[int, ...]]]:
    head, tail = model.prompt.source_head, model.prompt.source_tail
    units = [(i, tuple(unit)) for i, unit in enumerate(source, start=1)]
    return [(0, head), *units, (len(source), tail)]


@pytest.mark.parametrize("layout", ["grouped", "interleaved"])
@pytest.mark.parametrize("name", [*FAMILIES, *FULL_WIDTH])
def test_weights_are_those_of_eager_attention(name: str, layout: str, tmp_path: Path) -> None:
    """Soft caps (Gemma 2) and learned sinks (gpt-oss) included."""
    model = load(name, tmp_path, layout)
    source = streams.random_units(6, VOCAB_SIZE, seed=1)
    target = streams.random_ids(3, VOCAB_SIZE, seed=2)
    sequence = [*model.prompt.target_head, *target]
    lane = lane_input(0, pieces(model, source), sequence, probes=True)
    output = model.step(model.new_cache(), [lane], attention=True)
    assert output is not None and output.weights_LPHK is not None

    sample = streams.sample_of(model.prompt, source, [*target, 0])
    packed = pack(sample, views_of([[len(source)] * 4]), model.layout).columns()
    batch = {key: torch.tensor([row]) for key, row in packed.items()}
    masks = layer_masks(
        visibility(model.layout, batch, batch), batch["position"], batch["position"], model.windows
    )
    model.model.set_attn_implementation("eager")
    with torch.inference_mode():
        embeddings = model.model.get_input_embeddings()(batch["input_ids"])
        eager = model.model.get_decoder()(
            inputs_embeds=embeddings,
            position_ids=batch["position"],
            attention_mask=additive(masks),
            output_attentions=True,
            use_cache=False,
        )
    expected = torch.stack([layer[:, :, -1] for layer in eager.attentions])
    assert output.weights_LPHK.shape == expected.shape
    assert (output.weights_LPHK - expected).abs().max() <= 1e-5
    by_unit = torch.zeros(len(source))
    unit_of = [unit for unit, ids in pieces(model, source) for _ in ids] + [0] * len(sequence)
    for entry, unit in enumerate(unit_of):
        if unit:
            by_unit[unit - 1] += expected[:, 0, :, entry].mean()
    shares = unit_attention(output.weights_LPHK, output.unit_PK)
    torch.testing.assert_close(shares[0], by_unit / by_unit.sum(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])
def test_each_lane_has_the_weights_it_has_alone(name: str, tmp_path: Path) -> None:
    model = load(name, tmp_path)
    head = model.prompt.target_head
    sources = [streams.random_units(n, VOCAB_SIZE, seed=n) for n in (2, 6, 4)]
    lanes = [
        lane_input(i, pieces(model, source), head, probes=i != 1)
        for i, source in enumerate(sources)
    ]
    together = model.step(model.new_cache(3), lanes, attention=True)
    assert together is not None and together.weights_LPHK is not None
    assert together.unit_PK.shape[0] == 2, "only lanes that probe"
    for row, source in enumerate((sources[0], sources[2])):
        lane = lane_input(0, pieces(model, source), head, probes=True)
        alone = model.step(model.new_cache(), [lane], attention=True)
        assert alone is not None and alone.weights_LPHK is not None
        size = alone.unit_PK.shape[1]
        assert together.unit_PK[row, :size].tolist() == alone.unit_PK[0].tolist()
        assert (together.unit_PK[row, size:] == -1).all()
        weights = together.weights_LPHK[:, row]
        torch.testing.assert_close(weights[..., :size], alone.weights_LPHK[:, 0])
        assert (weights[..., size:] == 0).all()


@pytest.mark.parametrize("name", [*FAMILIES, *FULL_WIDTH])
def test_a_probe_changes_no_logits_and_is_not_taken_unasked(name: str, tmp_path: Path) -> None:
    model = load(name, tmp_path)
    source = streams.random_units(5, VOCAB_SIZE, seed=3)
    lane = lane_input(0, pieces(model, source), model.prompt.target_head, probes=True)
    probed = model.step(model.new_cache(), [lane], attention=True)
    plain = model.step(model.new_cache(), [lane])
    assert probed is not None and plain is not None and plain.weights_LPHK is None
    assert gap(probed.logits_PV, plain.logits_PV) <= TOLERANCE / 10
    assert model.model.config._attn_implementation == ATTENTION


def test_families_with_attention_of_their_own_are_named(tmp_path: Path) -> None:
    model = load("falcon", tmp_path)
    units = streams.as_units(streams.random_units(4, VOCAB_SIZE, seed=1))
    assert streams.feed(Session(model, parse_policy("entropy:5")), units, 1).state.finished
    message = "take a policy that needs no attention, such as entropy"
    with pytest.raises(ValueError, match=message):
        Session(model, parse_policy("attention:0.3"))
    engine = Engine(model, parse_policy("entropy:5"), Limits(streams=2))
    engine.push(engine.open(), units)
    with pytest.raises(ValueError, match=message):
        engine.open(policy=parse_policy("attention:0.3"))
    while engine.step() is not None:  # the one that was refused ends no other
        pass
    assert engine.state(0).finished and engine.has_room


UNITS = torch.tensor([[0, 0, 1, 1, 2, 0, 3, -1], [0, 1, 2, 0, -1, -1, -1, -1]])
WEIGHTS = torch.tensor(
    [  # one layer: [B, H, K]; sums of units 1, 2, 3: (.2 .1 .1) and (.1 .2 .1) in the first lane
        [
            [[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0], [0.3, 0.2, 0.1, 0.0, 0.2, 0.1, 0.1, 0.0]],
            [[0.5, 0.1, 0.3, 0.1, 0.0, 0.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0]],
        ]
    ]
)


def test_unit_attention_by_hand() -> None:
    shares = unit_attention(WEIGHTS, UNITS)
    expected = torch.tensor([[0.375, 0.375, 0.25], [0.25, 0.75, 0.0]])
    torch.testing.assert_close(shares, expected)


def test_unit_attention_of_chosen_heads() -> None:
    shares = unit_attention(WEIGHTS, UNITS, heads=((0, 1),))
    # The head of lane 2 looks at no unit at all: its shares are 0, not NaN.
    torch.testing.assert_close(shares, torch.tensor([[0.25, 0.5, 0.25], [0.0, 0.0, 0.0]]))
    both = unit_attention(WEIGHTS, UNITS, heads=((0, 0), (0, 1)))
    torch.testing.assert_close(both, unit_attention(WEIGHTS, UNITS))


def test_unit_attention_by_head_is_that_of_each_head() -> None:
    by_head = unit_attention_by_head(WEIGHTS.repeat(2, 1, 1, 1), UNITS)
    assert by_head.shape == (2, 2, 2, 3)
    for head in (0, 1):
        torch.testing.assert_close(
            by_head[1, head], unit_attention(WEIGHTS, UNITS, heads=((0, head),))
        )


def test_without_a_unit_read_there_is_one_empty_share() -> None:
    assert unit_attention(WEIGHTS[:, :1], torch.zeros(1, 8, dtype=torch.long)).tolist() == [[0.0]]
