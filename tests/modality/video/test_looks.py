"""ViCA and VisiPruner: what layers do with what is seen, against the same written out by hand."""

from dataclasses import replace

import pytest
import torch
from tests.video_models import save_tiny_watcher
from torch.utils.flop_counter import FlopCounterMode

from proactivellm import load, parse_policy
from proactivellm.cli import main
from proactivellm.core.packing import IGNORE, MEDIA_ID
from proactivellm.forward.controls import parse_control
from proactivellm.forward.lanes import LaneInput, Piece
from proactivellm.forward.packed import as_tensors, decoder_positions
from proactivellm.forward.seen import Asked, Seen
from proactivellm.forward.speculation import Lookup
from proactivellm.forward.visipruner import VisiPruner, _contributions, _into_sink
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits

from .clips import write_clip
from .looking import GRID, SCHEDULE, masked, noise, packed, seen, stepped

LAYERS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher"), layers=LAYERS)


@pytest.fixture
def model(folder):
    return load(folder)


def units_of(model):
    *units, _ = seen(model, noise())
    return units


def by_hand(model, units, layers):
    """Logits of the tokens written, of a full forward in which rows that are seen are put back
    after each layer, and text does not see them but in the layers given."""
    sequence = packed(model, units, SCHEDULE)
    columns = as_tensors([sequence])
    ids_S, group_S, arrival_S = (columns[k][0] for k in ("input_ids", "group", "arrival"))
    is_seen_S = ids_S == MEDIA_ID
    hidden = model.parts.embed(ids_S.clamp(min=0))[None]
    hidden[0, is_seen_S] = torch.cat([unit.features for unit in units])
    embedded = hidden.clone()
    attends = torch.tensor(model.layout.attends)[group_S[:, None], group_S[None]]
    allowed_SS = attends & (arrival_S[None] <= arrival_S[:, None])
    decoder = model.parts.decoder
    rope = decoder.rotary_emb(hidden, decoder_positions(columns))
    for number, layer in enumerate(decoder.layers):
        mask = allowed_SS
        if number not in layers:
            mask = mask & ~(~is_seen_S[:, None] & is_seen_S[None])
        hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=rope)
        hidden[0, is_seen_S] = embedded[0, is_seen_S]
    rows = [row for row, label in enumerate(sequence.label) if label != IGNORE]
    return model.parts.project(decoder.norm(hidden)[0, rows])


class TestViCA:
    @pytest.mark.parametrize("layers", ["0", "1,3", "", "0-3"])
    @torch.inference_mode()
    def test_a_stream_is_the_full_forward_with_frozen_rows(self, model, layers):
        units = units_of(model)
        control = parse_control(f"vica:{layers}")
        expected = by_hand(model, units, control.layers)
        model.look(control)
        streamed = torch.cat([*stepped(model, units)])
        assert torch.allclose(streamed, expected, atol=1e-4 * float(expected.abs().max()))
        assert torch.allclose(
            masked(model, units), expected, atol=1e-4 * float(expected.abs().max())
        )
        model.look(None)
        plain = torch.cat([*stepped(model, units)])
        assert not torch.allclose(plain, expected, atol=0.01)

    def test_without_layers_it_is_blind(self, model):
        units = units_of(model)
        others = [
            u if u.features is None else replace(u, features=u.features.flip(0)) for u in units
        ]
        for look, is_blind in (("vica:", True), ("vica:2", False)):
            model.look(parse_control(look))
            with torch.inference_mode():
                one, two = (torch.cat([*stepped(model, each)]) for each in (units, others))
            assert torch.equal(one, two) is is_blind

    @torch.inference_mode()
    def test_keys_and_values_depend_on_the_frame_alone(self, model):
        model.look(parse_control("vica:1,2"))
        first, second, *_ = units_of(model)

        def entries(head, before):
            cache = model.new_cache()
            pieces = [Piece("source", 0, head), Piece("source", 1, before.features, GRID)]
            pieces.append(Piece("source", 2, second.features, GRID))
            cache.reserve(0, 2 + 2 * GRID.size)
            model.step(cache, [LaneInput(lane=0, pieces=pieces)])
            cache.lengths[0] = 2 + 2 * GRID.size
            found = cache.snapshot(0)
            return [found[k][n][-GRID.size :] for k in ("keys", "values") for n in (1, 2)]

        one, two = entries([5, 6], first), entries([7, 8], replace(first, features=-first.features))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))

    @torch.inference_mode()
    def test_what_is_seen_costs_two_projections_in_the_chosen_layers(self, model):
        (unit, *_), config = units_of(model), model.model.config.get_text_config()
        piece = LaneInput(lane=0, pieces=[Piece("source", 1, unit.features, GRID)])

        def flops(look):
            model.look(parse_control(look))
            with FlopCounterMode(display=False) as counter:
                model.step(model.new_cache(), [piece])
            return counter.get_total_flops()

        width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
        of_a_layer = 2 * 2 * GRID.size * config.hidden_size * width
        blind, one, three = (flops(f"vica:{layers}") for layers in ("", "1", "0,2,3"))
        assert (one - blind, three - blind) == (of_a_layer, 3 * of_a_layer)
        assert blind < of_a_layer / 50, "the angles of its positions"


class TestVisiPruner:
    def test_contributions_add_up_to_the_output(self):
        rng = torch.Generator().manual_seed(0)
        weights = torch.rand(2, 4, 7, generator=rng).softmax(-1)
        value = torch.randn(2, 2, 7, 8, generator=rng)
        is_seen = torch.rand(2, 7, generator=rng) > 0.4
        found = _contributions(weights, value, is_seen)
        # [B, K, H * D], entry by entry
        each = (weights[..., None] * value.repeat_interleave(2, 1)).permute(0, 2, 1, 3).flatten(2)
        output = each.sum(1)
        assert torch.allclose(found.output_BX, output, atol=1e-6)
        text = (each * ~is_seen[..., None]).sum(1)
        assert torch.allclose(found.seen_BX + text, output, atol=1e-6)
        assert torch.allclose(found.norm_BK, each.norm(dim=-1), atol=1e-6)
        assert torch.allclose(found.along_BK, (each * output[:, None]).sum(-1), atol=1e-6)

    def test_all_that_text_spends_on_the_picture_falls_on_one_token(self):
        rng = torch.Generator().manual_seed(1)
        query, key, value = (torch.randn(1, 2, n, 4, generator=rng) for n in (2, 5, 5))
        is_seen = torch.tensor([[False, True, True, True, False]])
        part = Seen(
            torch.zeros(1, 2, dtype=torch.bool), is_seen, torch.tensor([[3, 4]]), torch.tensor([1])
        )
        mask = torch.ones(1, 1, 2, 5, dtype=torch.bool)
        scores = {"scaling": 0.5, "cap": None, "sinks": None}
        out = _into_sink(Asked(query, key, value, mask, scores), part)
        weights = (query @ key.transpose(2, 3) * 0.5).softmax(-1)
        sink = int(weights[..., 1:4].sum((0, 1, 2)).argmax()) + 1
        expected = weights[..., [0]] * value[:, :, [0]] + weights[..., [4]] * value[:, :, [4]]
        expected = expected + weights[..., 1:4].sum(-1, keepdim=True) * value[:, :, [sink]]
        assert torch.allclose(out, expected.transpose(1, 2), atol=1e-6)

    def pruned(self, rules, contributions, layers):
        """How many of four tokens of a picture are shown, layer by layer; each contributes along
        an axis of its own, the text along the last one."""
        is_seen = torch.tensor([[True] * 4 + [False]])
        part = Seen(torch.tensor([[False]]), is_seen, torch.tensor([[4]]), torch.tensor([0]))
        step = rules.begin([part], torch.tensor([[False]]))
        query, key = torch.zeros(1, 1, 1, 5), torch.zeros(1, 1, 5, 5)  # equal weights
        value = torch.diag(torch.tensor([*contributions, 1.0]) * 5)[None, None]
        scores = {"scaling": 1.0, "cap": None, "sinks": None}
        masks = []
        for layer in range(layers):
            mask = step.mask(layer, 0, None)
            step.attend(layer, 0, Asked(query, key, value, mask, scores))
            masks.append(mask[0, 0, 0, :4].tolist())
        return [int(step.shown[layer, 0]) for layer in range(layers)], masks

    def test_what_contributes_survives_the_filter(self):
        rules = VisiPruner(shallow=2, norm=0.2, exit=2.0)
        shown, masks = self.pruned(rules, [0.01, 0.02, 0.9, 0.01], layers=5)
        assert shown == [4, 0, 4, 1, 1]  # in layer 0 all of it stands behind the sink
        assert masks[3] == [False, False, True, False]

    def test_a_layer_that_nothing_turns_is_no_filter(self):
        shown, _ = self.pruned(VisiPruner(shallow=1, exit=0.5), [0.01] * 4, layers=5)
        assert shown == [4, 4, 4, 4, 4], "without a filter before it, no layer counts as late"

    def test_the_picture_is_left_out_after_two_layers_without_need(self):
        rules = VisiPruner(shallow=1, norm=0.0, exit=0.1)
        assert self.pruned(rules, [0.5, 0.5, 0.5, 0.5], layers=6)[0] == [4, 4, 4, 4, 0, 0]

    @torch.inference_mode()
    def test_thresholds_that_prune_nothing_change_nothing(self, model):
        units = units_of(model)
        plain = torch.cat([*stepped(model, units)])
        model.look(VisiPruner(shallow=0, filter=-1.0, norm=0.0, exit=2.0, among=1))
        same = torch.cat([*stepped(model, units)])
        assert torch.allclose(same, plain, atol=1e-5 * float(plain.abs().max()))
        model.look(VisiPruner(shallow=2))
        assert not torch.allclose(torch.cat([*stepped(model, units)]), plain, atol=0.01)

    @torch.inference_mode()
    def test_entries_keep_their_positions(self, model):
        kinds = []
        for control in (None, VisiPruner(shallow=1, norm=1.0)):
            model.look(control)
            engine = Engine(model, parse_policy("wait-k:1"))
            lane = engine.open()
            engine.push(lane, units_of(model))
            engine.step()
            kinds.append(engine.admission.residence.cache.entry_kinds(lane)[:, :30])
        assert torch.equal(*kinds)


@pytest.mark.parametrize("look", ["vica:1,2", "visipruner:shallow=1,norm=0.5"])
@pytest.mark.parametrize("kv", [None, "int8"])
def test_streams_in_company_write_what_they_write_alone(model, look, kv):
    model.look(parse_control(look))
    model.compress_cache(kv)
    *units, end = seen(model, noise())
    sources = [[*units, end], [*units[:2], end], [*units[::-1], end]]

    def run(sources):
        engine = Engine(model, parse_policy("wait-k:1"), limits=Limits(streams=3))
        lanes = []
        for source in sources:
            lanes.append(engine.open())
            engine.push(lanes[-1], source)
        while engine.step() is not None:
            pass
        return [engine.state(lane).target for lane in lanes]

    alone = [target for source in sources for target in run([source])]
    assert run(sources) == alone and len(set(map(tuple, alone))) > 1


def test_what_does_not_go_together(model, tmp_path):
    with pytest.raises(ValueError, match="vica:4.* has 4 layers, and no 4"):
        model.look(parse_control("vica:4"))
    with pytest.raises(ValueError, match="has 4 layers: give fewer as shallow"):
        model.look(VisiPruner())
    model.speculate(Lookup())
    with pytest.raises(ValueError, match="leave speculation out"):
        model.look(VisiPruner(shallow=1))
    model.speculate(None)
    model.look(VisiPruner(shallow=1))
    with pytest.raises(ValueError, match="leave speculation out"):
        model.speculate(Lookup())


def test_the_command_and_the_settings(folder, model, tmp_path, capsys):
    clip = write_clip(tmp_path / "a.mp4", [n / 2 for n in range(10)], size=(60, 88))

    def streamed(model_folder, *flags):
        command = ["stream", "--model", str(model_folder), "--input", str(clip), *flags]
        with pytest.raises(SystemExit) as ended:
            main([*command, "--policy", "wait-k:1"])
        assert not ended.value.code
        return capsys.readouterr().out

    looked = streamed(folder, "--look", "vica:1")
    assert looked != streamed(folder)
    model.front_end.watch(look="vica:1")
    model.save_pretrained(tmp_path / "saved")
    assert str(load(tmp_path / "saved").control) == "vica:1"
    assert streamed(tmp_path / "saved") == looked
    for flag, told in (("vica:9", "has 4 layers"), ("deep", "give vica:LAYERS")):
        with pytest.raises(SystemExit) as ended:
            main(["stream", "--model", str(folder), "--input", str(clip), "--look", flag])
        assert ended.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        *(
            "vica:a",
            "vica:1-",
            "vica:3-1",
            "vica:0-9999999999",
            "visipruner:depth=1",
            "visipruner:6",
        ),
        *("visipruner:norm=nan", "visipruner:among=2", "visipruner:shallow=-1", "x"),
    ],
)
def test_looks_that_are_none(text):
    with pytest.raises(ValueError, match="give vica:LAYERS"):
        parse_control(text)


def test_a_look_by_its_name():
    assert parse_control("vica:0,2-4").layers == {0, 2, 3, 4}
    assert parse_control("visipruner:shallow=2,exit=0.9") == VisiPruner(shallow=2, exit=0.9)
    assert str(parse_control(str(VisiPruner()))) == str(VisiPruner())
