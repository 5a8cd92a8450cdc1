"""A vision-language model is trained by a recipe: what it sees, what learns, what it writes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.models import save_tiny
from tests.train.runs import logged
from tests.video_models import FAMILIES, save_tiny_watcher
from transformers import set_seed

from proactivellm import load, parse_policy
from proactivellm.backbone.thinking import ThinkingIds
from proactivellm.core.layout import SOURCE, TARGET, THOUGHT, make_layout
from proactivellm.core.masks import PADDING
from proactivellm.core.packing import IGNORE, MEDIA_ID, Sample, Written, pack
from proactivellm.core.schedule import offline
from proactivellm.files.toml import load_toml
from proactivellm.forward.controls import parse_control
from proactivellm.forward.packed import packed_hidden
from proactivellm.metrics.thinking import measure_thinking
from proactivellm.modality.video.encoding import write_clip
from proactivellm.modality.video.recipe import Clips, Video
from proactivellm.policy.fixed import WaitK
from proactivellm.stream import run_streams
from proactivellm.tasks.jobs import item_job
from proactivellm.tasks.shapes import NUMBERS, draw_clips, frames_of, write_shapes
from proactivellm.tasks.speech import read_manifest
from proactivellm.train.assembly import make_trainer
from proactivellm.train.block_attention import PACKED_ATTENTION, register
from proactivellm.train.build import make_backbone, make_settings
from proactivellm.train.outputs import Outputs
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train
from proactivellm.train.samples import ItemEncoder, SampleEncoder
from proactivellm.train.thinking_table import ThinkingTable
from proactivellm.train.thoughts import ThoughtEncoder, thought_view
from proactivellm.train.views import collate
from proactivellm.train.watched_thoughts import WatchedEncoder

RECIPE = """
[data.train]
manifest = "MANIFEST"
[stream]
early_end = true
[stream.prompt]
source_head = "<|source|>"
source_open = "<|source|>"
source_tail = "<|end|>"
target_head = "<|target|>"
[backbone]
model_type = "qwen2_5_vl"
vocab_size = 310
[backbone.config.text_config]
hidden_size = 32
num_hidden_layers = 1
intermediate_size = 64
num_attention_heads = 2
num_key_value_heads = 2
initializer_range = 0.1
rope_parameters = { rope_type = "default", rope_theta = 10000.0, mrope_section = [2, 3, 3] }
[backbone.config.vision_config]
depth = 1
hidden_size = 32
intermediate_size = 32
num_heads = 2
out_hidden_size = 32
patch_size = 12
fullatt_block_indexes = [0]
tokens_per_second = 2
[video]
min_pixels = 2304
max_pixels = 2304
[optimisation]
epochs = 6
batch_size = 3
learning_rate = 1e-2
precision = "fp32"
[output]
save_steps = 4
log_steps = 1
dtype = "float32"
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shapes") / "train.jsonl"
    list(write_shapes(out, 4, kinds=("tell", "appeared")))
    return out


def recipe(manifest: Path, folder: Path, change=("", "")) -> Recipe:
    file = folder / "recipe.toml"
    file.write_text(RECIPE.replace(*change).replace("MANIFEST", str(manifest)))
    return load_toml(file, Recipe)


@pytest.fixture(scope="module", params=FAMILIES)
def watcher(tmp_path_factory, request):
    model = load(save_tiny_watcher(tmp_path_factory.mktemp("watcher"), family=request.param))
    table = Video(min_pixels=48 * 48, max_pixels=56 * 56)
    return model, table.make_front_end(model.model, model.tokenizer)


def test_training_sees_what_a_stream_sees(watcher, manifest):
    """Clips of several lengths at once, each as its ear gives it; the question is in the prompt."""
    model, front_end = watcher
    items = read_manifest(manifest)
    encoder = ItemEncoder(SampleEncoder(model.tokenizer, model.prompt, 3), Clips(front_end))
    samples = [encoder.join([items[place]]) for place in (0, 2, 4)]
    assert len({len(sample.features) for sample in samples}) > 1
    packed = [
        pack(s, [{TARGET: offline(s.num_units, len(s.written[TARGET].tokens))}], model.layout)
        for s in samples
    ]
    batch = collate(packed)
    learner = SimpleNamespace(front_end=front_end, model=model.model)
    with torch.no_grad():
        embeddings = Outputs(learner, batch).embeddings_BSH
    for row, (sample, clip, place) in enumerate(
        zip(samples, draw_clips(3), (0, 2, 4), strict=True)
    ):
        ear = front_end.open(2)
        *units, _ = [*ear.push(frames_of(clip), 9.0), *ear.finish(9.0)]
        seen = torch.cat([unit.features for unit in units])
        begin = len(sample.read[SOURCE][0])
        found = embeddings[row, begin : begin + len(seen)]
        assert found.shape == seen.shape and torch.allclose(found, seen, atol=1e-5)
        assert sample.grids == {number: unit.grid for number, unit in enumerate(units, 1)}
        question = encoder.text.segmenter.whole(items[place].source)
        assert sample.read[SOURCE][0] == model.prompt.opening(question)
        assert [*map(len, sample.read[SOURCE])][1:-1] == [u.grid.size for u in units[:-1]]
    assert encoder.longest([items[0]]).read == samples[0].read


def test_training_looks_as_a_stream_does(watcher, manifest):
    """Under ViCA: hidden states of text, and gradients that reach the encoder without a NaN."""
    model, front_end = watcher
    items = read_manifest(manifest)
    encoder = ItemEncoder(SampleEncoder(model.tokenizer, model.prompt, 3), Clips(front_end))
    sample = encoder.join([items[0]])
    length = len(sample.written[TARGET].tokens)
    packed = pack(sample, [{TARGET: offline(sample.num_units, length)}], model.layout)
    control, (given, params) = parse_control("vica:1"), ((), [*front_end.parameters()])
    learner = SimpleNamespace(front_end=front_end, model=model.model, control=control, terms=given)
    learner.layout, learner.windows = model.layout, model.windows
    outputs = Outputs(learner, collate([packed]))
    before = model.model.config._attn_implementation
    register()
    model.model.set_attn_implementation(PACKED_ATTENTION)
    try:
        hidden = outputs.decoded.last_hidden_state[0]
        found = torch.autograd.grad(hidden[-1].sum(), params, allow_unused=True)
    finally:
        model.model.set_attn_implementation(before)
    assert all(grad.isfinite().all() for grad in found if grad is not None)
    assert any(grad.abs().sum() > 0 for grad in found if grad is not None)
    text = torch.tensor(packed.input_ids) != MEDIA_ID
    model.look(control)
    streamed = packed_hidden(model, [packed], [outputs.encoded_APD[0, : (~text).sum()].detach()])
    model.look(None)
    plain = packed_hidden(model, [packed], [outputs.encoded_APD[0, : (~text).sum()].detach()])
    scale = float(streamed.abs().max())
    assert torch.allclose(hidden[text], streamed[0, text], atol=1e-4 * scale)
    assert not torch.allclose(hidden[text], plain[0, text], atol=1e-2 * scale)


def test_a_model_that_looks_otherwise_is_trained_saved_and_loaded(manifest, tmp_path):
    change = ("[video]", '[video]\nlook = "vica:0"')
    again = load(train(recipe(manifest, tmp_path, change), tmp_path / "out"))
    assert str(again.control) == "vica:0"


def test_words_wait_for_the_moments_that_tell_them(watcher, manifest):
    """Of captions each word, of what has not appeared the end; a moment is a second here."""
    model, front_end = watcher
    items = read_manifest(manifest)
    encoder = ItemEncoder(SampleEncoder(model.tokenizer, model.prompt, 3), Clips(front_end))
    for item, times in zip(items[::2], draw_clips(4), strict=True):
        sample = encoder.join([item])
        told = [event.first // 2 + 1 for event in times.events]
        due = encoder.due([item], sample)
        assert len(due) == len(sample.written[TARGET].tokens) and due == sorted(due)
        assert [*dict.fromkeys(due)] == [*dict.fromkeys(told)]
    no = next(item for item in items if item.target == "no")
    sample = encoder.join([no])
    assert {*encoder.due([no], sample)} == {sample.num_units}
    with pytest.raises(ValueError, match="not known, as several are joined"):
        encoder.due(items[:2], encoder.join(items[:2]))


def test_silence_needs_evidence(manifest, tmp_path):
    keys = "[objective]\nsilent_until_due = true\nkl_weight = 0.0\n[optimisation]"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        line["video"] = str(manifest.parent / line["video"])
    del lines[3]["evidence_s"]
    untold = tmp_path / "untold.jsonl"
    untold.write_text("\n".join(map(json.dumps, lines)))
    changed = RECIPE.replace("[optimisation]", keys).replace("early_end = true", "")
    with pytest.raises(ValueError, match=r"line 4: .*give the line `evidence_s`"):
        train(recipe(untold, tmp_path, (RECIPE, changed)), tmp_path / "out")


def test_trained_resumed_and_streamed(manifest, tmp_path):
    out = train(recipe(manifest, tmp_path), tmp_path / "out")
    losses = [entry["loss"] for entry in logged(out) if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]
    whole = load(out)
    (out / "training_log.jsonl").unlink()
    for step in out.glob("checkpoint-*"):
        if int(step.name.partition("-")[2]) > 8:
            (step / "trainer_state.json").unlink()
    assert any(out.glob("checkpoint-*/trainer_state.json"))
    resumed = load(train(recipe(manifest, tmp_path), out))
    for model in (whole, resumed):
        assert model.front_end.settings.pixels.patch == 12
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    jobs = [item_job(i, item, "qa") for i, item in enumerate(read_manifest(manifest))]
    instances = [*run_streams(whole, parse_policy("wait-k:2"), jobs)]
    assert all(instance.source_type == "video" for instance in instances)
    assert any(instance.prediction for instance in instances)
    assert all(1000 * jobs[i.index].evidence_s[0] == i.evidence_ms[0] for i in instances)
    assert json.loads((out / "video" / "video.json").read_text())["chunk"] == 1


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("counting") / "train.jsonl"
    list(write_shapes(out, 6, kinds=("counting",)))
    return out


def thinking_recipe(counting: Path, folder: Path, **changes: str) -> Recipe:
    changed = RECIPE.replace("early_end = true\n", "[thinking]\ndepth = [1, 1]\n")
    changed = changed.replace("[stream]\n", "")
    for before, after in changes.items():
        changed = changed.replace(before, after)
    return recipe(counting, folder, (RECIPE, changed))


def test_thoughts_stand_at_the_moments_that_tell_them(watcher, counting):
    """The number so far after each moment in which a shape has come; all others are skipped."""
    model, front_end = watcher
    ids = ThinkingIds(skip=90, end=91, answer=92, stages=(93, 94))
    thoughts = ThoughtEncoder(model.tokenizer, model.prompt, ids, 3)
    encoder = WatchedEncoder(thoughts, ThinkingTable(depth=(1, 1)), Clips(front_end))
    for item, clip in zip(read_manifest(counting), draw_clips(6), strict=True):
        sample = encoder.join([item])
        colour = item.source.split()[2] if item.source.count(" ") > 3 else None
        comes = [e.first // 2 for e in clip.events if colour in (None, e.colour)]
        spoken = [""] * (clip.num_frames // 2)
        for place, number in zip(comes, NUMBERS[1:], strict=False):
            spoken[place] = f"{spoken[place]} {number}".strip()
        wanted = [
            id_
            for text in spoken
            for id_ in ([*model.tokenizer.encode(text), 91] if text else [90])
        ]
        assert sample.written[THOUGHT].tokens == [*wanted, 92]
        assert [len(unit) for unit in sample.read[SOURCE][1:-1]] == [
            grid.size for grid in sample.grids.values()
        ]
        assert item.target == NUMBERS[len(comes)]


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_published_settings_train_a_tiny_one(counting, tmp_path, size):
    """Two updates of the recipe, on the class that it names."""
    text = Path(f"recipes/video/qwen2.5-vl-{size}.tays.toml").read_text()
    folder = save_tiny_watcher(tmp_path / "tiny", chats=True)
    text = text.replace(f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct", str(folder))
    for split in ("train", "valid"):
        text = text.replace(f'{split}.jsonl"\n', f'{counting}"\n')
    text = text.replace("gradient_accumulation = 16", "gradient_accumulation = 3")
    (tmp_path / "recipe.toml").write_text(text + "log_steps = 1\n")
    out = train(load_toml(tmp_path / "recipe.toml", Recipe), tmp_path / "out")
    assert len([entry for entry in logged(out) if "loss" in entry]) == 2
    assert load(out).thinking is not None


def test_the_recipe_in_the_repository_can_be_built(counting, tmp_path):
    recipe = load_toml(Path("recipes/thinking/counting.toml"), Recipe)
    items = read_manifest(counting) * 4
    model, tokenizer = make_backbone(recipe, items)
    ready = (model, tokenizer, make_settings(recipe, tokenizer))
    trainer = make_trainer(recipe, tmp_path, (items, items[:2]), ready)
    assert len(trainer.train_dataset) == 4 * (len(items) // 16) * 16
    assert sum(weight.numel() for weight in model.parameters()) < 1.5e6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({'source_open = "<|source|>"\n': ""}, "the prompt has no place for its question"),
        ({"[thinking]\n": "[distillation]\n[thinking]\n"}, "does not go with .distillation."),
    ],
)
def test_what_cannot_be_thought(counting, tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        train(thinking_recipe(counting, tmp_path, **change), tmp_path / "out")


def test_thoughts_have_to_be_there(manifest, tmp_path):
    with pytest.raises(ValueError, match="line 1: there are no thoughts to learn from"):
        train(thinking_recipe(manifest, tmp_path), tmp_path / "out")


def test_a_model_that_thinks_while_it_watches(counting, tmp_path, monkeypatch):
    """Trained, loaded and streamed: a thought about each moment, and the logits of one forward."""
    model = load(train(thinking_recipe(counting, tmp_path), tmp_path / "out"))
    item = read_manifest(counting)[0]
    given, step = [], model.step

    def noted(*args, **how):
        output = step(*args, **how)
        given.extend(output.logits_PV.clone() if output is not None else ())
        return output

    monkeypatch.setattr(model, "step", noted)
    (instance,) = run_streams(model, parse_policy("wait-k:1"), [item_job(0, item, "qa")])
    num_moments = int(item.duration_s)
    assert [thought.units_read for thought in instance.thoughts] == [*range(1, num_moments + 1)]
    measured = measure_thinking([instance])
    assert "think_rate" in measured and instance.source_ms == 1000 * num_moments

    front_end, ids = model.front_end, model.thinking
    encoder = WatchedEncoder(
        ThoughtEncoder(model.tokenizer, model.prompt, ids, model.tokenizer.eos_token_id),
        ThinkingTable(depth=(1, 1)),
        Clips(front_end),
    )
    told = tuple(
        (float(thought.units_read), thought.text) for thought in instance.thoughts if thought.text
    )
    sample = encoder.join([item._replace(thoughts=told, target=instance.prediction)])
    view = thought_view(sample, ids, WaitK(k=1).required_units)
    packed = pack(sample, [view], model.layout)
    media = front_end.encode(torch.from_numpy(sample.features)[None], torch.tensor([num_moments]))
    hidden = packed_hidden(model, [packed], [media[0].detach()])[0]
    rows = [row for row, label in enumerate(packed.label) if label != IGNORE]
    expected, found = model.parts.project(hidden[rows]).detach(), torch.stack(given)
    assert len(found) >= len(expected) - 1
    scale = float(expected.abs().max())
    assert torch.allclose(found[: len(expected)], expected[: len(found)], atol=1e-4 * scale)


@pytest.mark.parametrize("learns", [True, False, "merger"])
def test_the_encoder_learns_if_it_is_to(manifest, tmp_path, learns):
    keys = f"train_encoder = {json.dumps(learns)}"
    changed = RECIPE.replace("[video]", f"[video]\n{keys}").replace("epochs = 6", "epochs = 1")
    short = recipe(manifest, tmp_path, (RECIPE, changed))
    set_seed(0)
    before, _ = make_backbone(short, read_manifest(manifest))
    before = before.model.visual.state_dict()
    after = load(train(short, tmp_path / "out")).model.model.visual.state_dict()
    same = {name: torch.equal(after[name], weight) for name, weight in before.items()}
    if learns == "merger":
        assert all(equal for name, equal in same.items() if "merger" not in name)
        same = {name: equal for name, equal in same.items() if "merger" in name}
    assert not all(same.values()) if learns else all(same.values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("min_pixels = 2304", "ctc_weight = 0.5"), "ctc_weight aligns speech"),
        (("min_pixels = 2304", 'pretrained = "x"'), "the encoder is that of the backbone"),
        (("min_pixels = 2304", 'look = "visipruner"'), "none is trained so"),
        (("[optimisation]", "[optimisation]\ngradient_checkpointing = true\n"), "does not go with"),
        (("depth = 1", "dept = 1"), "no key 'dept'; did you mean 'depth'"),
        (("num_hidden_layers = 1", "vocab_size = 5"), "vocab_size follows from the tokenizer"),
    ],
)
def test_what_cannot_be_trained(manifest, tmp_path, change, told):
    if "checkpointing" in change[1]:
        change = (RECIPE, RECIPE.replace(*change).replace("[video]", '[video]\nlook = "vica:0"'))
    with pytest.raises(ValueError, match=told):
        train(recipe(manifest, tmp_path, change), tmp_path / "out")


def test_clips_have_one_size(watcher, manifest, tmp_path):
    wide = tmp_path / "wide.mkv"
    write_clip(wide, np.zeros((4, 48, 112, 3), np.uint8), 2)
    clips = Clips(watcher[1])
    clips.read([read_manifest(manifest)[0].media])
    with pytest.raises(ValueError, match=r"wide\.mkv: it becomes .* bring all clips to one size"):
        clips.read([(str(wide),)])


FURTHER = """
[data.train]
manifest = "MANIFEST"
[backbone]
pretrained = "FOLDER"
[video]
chunk = 2
SIZE
[objective]
silent_until_due = true
kl_weight = 0.0
[optimisation]
epochs = 1
batch_size = 4
learning_rate = 1e-3
precision = "fp32"
[output]
dtype = "float32"
save_steps = 1
"""


# Of the folder; of Qwen3-VL, which tells no pixels of a frame, those would be many.
SIZES = {"qwen2_5_vl": "", "qwen3_vl": "min_pixels = 2304\nmax_pixels = 4096\n"}


def further(
    manifest: Path, place: Path, more: str = "", family: str = "qwen2_5_vl"
) -> tuple[Path, Recipe]:
    """A pretrained watcher, and the recipe that trains it."""
    folder = save_tiny_watcher(place / "watcher", chats=True, family=family)
    text = FURTHER.replace("MANIFEST", str(manifest)).replace("FOLDER", str(folder)) + more
    text = text.replace("SIZE\n", SIZES[family])
    (place / "recipe.toml").write_text(text)
    return folder, load_toml(place / "recipe.toml", Recipe)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pretrained_watcher_learns(manifest, tmp_path, family):
    """Its encoder is that of the folder, which says how it sees; the question is in the prompt."""
    folder, wanted = further(manifest, tmp_path, family=family)
    out = train(wanted, tmp_path / "out")
    before, after = load(folder), load(out)
    assert after.prompt == before.prompt and after.prompt.num_open is not None
    ours, theirs = after.front_end.settings, before.front_end.settings
    assert ours.chunk == 2 and ours.pixels.mean == theirs.pixels.mean
    assert family == "qwen3_vl" or ours == theirs.model_copy(update={"chunk": 2})
    pairs = zip(before.model.state_dict().items(), after.model.state_dict().values(), strict=True)
    changed = [name for (name, one), other in pairs if not torch.equal(one, other)]
    assert any("visual" in name for name in changed) and any("layers" in n for n in changed)
    if family == "qwen3_vl":  # what its first layers are told besides
        assert any("deepstack" in name for name in changed)
    jobs = [item_job(i, item, "qa") for i, item in enumerate(read_manifest(manifest)[:2])]
    ends = [instance.delays for instance in run_streams(after, parse_policy("wait-k:2"), jobs)]
    assert len(ends) == 2


@pytest.mark.parametrize("merge", [True, False])
def test_adapters_leave_the_encoder_alone(manifest, tmp_path, merge):
    """Saved alone, they are put into their model again, which then sees as they were trained."""
    more = f"[lora]\nr = 2\nmerge = {str(merge).lower()}\n"
    folder, wanted = further(manifest, tmp_path, more)
    out = train(wanted, tmp_path / "out")
    (out / "training_log.jsonl").unlink()
    train(wanted, out)  # goes on from its last checkpoint
    before, after = load(folder), load(out, merge=True)
    assert (out / "adapter_config.json").is_file() != merge
    assert after.prompt == before.prompt and after.prompt.num_open is not None
    assert (before.front_end.settings.chunk, after.front_end.settings.chunk) == (1, 2)
    pairs = zip(before.model.state_dict().items(), after.model.state_dict().values(), strict=True)
    changed = [name for (name, one), other in pairs if not torch.equal(one, other)]
    assert changed and not any("visual" in name for name in changed)
    if not merge:
        apart = load(out)
        assert not any("visual" in name and "lora" in name for name in apart.model.state_dict())
        jobs = [item_job(i, item, "qa") for i, item in enumerate(read_manifest(manifest)[:2])]
        of = [[*run_streams(m, parse_policy("wait-k:2"), jobs)] for m in (apart, after)]
        assert [one.prediction for one in of[0]] == [one.prediction for one in of[1]]
        apart.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / "adapter_config.json").is_file()


def test_an_adapter_of_the_encoder_too(tmp_path):
    """As other tools train it: the encoder of a stream has it, apart and merged."""
    folder = save_tiny_watcher(tmp_path / "watcher", chats=True)
    adapted = get_peft_model(load(folder).model, LoraConfig(r=2, target_modules="all-linear"))
    for name, parameter in adapted.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    frames = frames_of(draw_clips(1)[0])
    seen = []
    for how in (
        {},
        {"adapter": tmp_path / "adapter"},
        {"adapter": tmp_path / "adapter", "merge": True},
    ):
        ear = load(folder, **how).front_end.open(2)
        with torch.inference_mode():
            *units, _ = [*ear.push(frames, 9.0), *ear.finish(9.0)]
        seen.append(torch.cat([unit.features for unit in units]))
    assert torch.allclose(seen[1], seen[2], atol=1e-4) and not torch.allclose(
        seen[0], seen[1], atol=1e-2
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("chunk = 2", "train_encoder = true"), "leave train_encoder out"),
        (("r = 2", 'r = 2\nquantization = "nf4"'), "with an encoder is loaded as it is"),
    ],
)
def test_adapters_that_cannot_be(manifest, tmp_path, change, told):
    further(manifest, tmp_path, "[lora]\nmerge = false\nr = 2\n")
    file = tmp_path / "recipe.toml"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ValueError, match=told):
        train(load_toml(file, Recipe), tmp_path / "out")


def test_other_families_are_refused(watcher, manifest, tmp_path):
    """A text model, and one whose tokens around moments a new tokenizer would lack."""
    text = load(save_tiny("qwen3", tmp_path / "text"))
    with pytest.raises(ValueError, match="of the type qwen2_5_vl or qwen3_vl, not 'qwen3'"):
        Video().make_front_end(text.model, text.tokenizer)
    model = load(save_tiny_watcher(tmp_path / "seen", family="qwen3_vl")).model
    model.config.name_or_path = model.name_or_path = ""
    with pytest.raises(ValueError, match="which a new tokenizer lacks: give `pretrained`"):
        Video().make_front_end(model, text.tokenizer)


def test_views_without_a_common_source_see_the_same():
    """Each view of `interleaved` has a copy of the source, and so of its embeddings."""
    samples = [
        Sample(
            read={SOURCE: [[7], [MEDIA_ID] * 2, [MEDIA_ID] * n]},
            written={TARGET: Written(head=[4], tokens=[5, 6])},
            features=np.arange(1, n + 3, dtype=np.float32)[:, None].repeat(3, 1) + 10 * n,
        )
        for n in (1, 3)
    ]
    views = [{TARGET: [2, 2]}, {TARGET: [1, 2]}]
    for layout in ("interleaved", "grouped"):
        batch = collate([pack(sample, views, make_layout(layout)) for sample in samples])
        front_end = SimpleNamespace(encode=lambda f, n: f, embed_outputs=lambda f, n: f)
        model = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(9, 3))
        outputs = Outputs(SimpleNamespace(front_end=front_end, model=model), batch)
        for row, sample in enumerate(samples):
            for view in {*batch["view"][row].tolist()} - {PADDING}:
                here = (batch["view"][row] == view) & (batch["input_ids"][row] == MEDIA_ID)
                if here.any():
                    found = outputs.embeddings_BSH[row, here]
                    assert torch.equal(found, torch.from_numpy(sample.features))
