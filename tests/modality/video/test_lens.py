"""EmbedLens: nearest words, the search for anchors, and dropping what they tell of."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.video_models import save_tiny_watcher

from proactivellm import load
from proactivellm.cli import main
from proactivellm.core.layout import LAYOUTS
from proactivellm.modality.video.anchors import Seen, look, search
from proactivellm.modality.video.dropping import Dropper, Dropping
from proactivellm.modality.video.encoding import write_clip
from proactivellm.modality.video.front_end import VideoFrontEnd
from proactivellm.modality.video.lens import ALIVE, DEAD, SINK, Lens, nearest
from proactivellm.modality.video.pixels import PixelSettings
from proactivellm.modality.video.recipe import Video
from proactivellm.modality.video.settings import VideoSettings

from .looking import masked, noise, seen, stepped, watching

WIDTH, WORDS = 32, 300
SINK_WORD, DEAD_WORD = 7, 11
SINKS, DEADS = slice(0, 6), slice(10, 30)  # places of a clip of 60


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


WORDS_VD = random(WORDS, WIDTH, seed=99)


def clip(seed, planted=True):
    features = random(60, WIDTH, seed=seed)
    if planted:
        spread = random(60, WIDTH, seed=seed + 50) / 10
        features[SINKS] = 5 * (WORDS_VD[SINK_WORD] + spread[SINKS])
        features[DEADS] = 0.7 * (WORDS_VD[DEAD_WORD] + spread[DEADS])
    return Seen(features, random(60, 12, seed=seed + 1000))


class TestNearest:
    def test_planted_tokens_are_recovered(self, monkeypatch):
        """Whatever their length, in blocks of words and of tokens, of the first D numbers alone."""
        ids = torch.randperm(WORDS, generator=torch.Generator().manual_seed(0))[:50]
        tokens = (WORDS_VD[ids] + random(50, WIDTH) / 4) * torch.arange(1, 51)[:, None]
        behind = torch.cat([tokens, 100 * random(50, 2 * WIDTH)], 1)
        whole = nearest(behind, WORDS_VD)
        assert torch.equal(whole[:, 0], ids)
        cosines = torch.cosine_similarity(tokens[:, None], WORDS_VD[None], dim=-1)
        assert torch.equal(whole, cosines.topk(3).indices)
        for name, size in (("_TOKENS", 7), ("_WORDS", 2)):
            monkeypatch.setattr(f"proactivellm.modality.video.lens.{name}", size)
        assert torch.equal(nearest(behind, WORDS_VD), whole)

    def test_of_no_tokens(self):
        assert nearest(torch.zeros(0, WIDTH), WORDS_VD).shape == (0, 3)


class TestClasses:
    LENS = Lens(vocabulary=WORDS, sink=(1, 2), dead=(5,))

    def test_an_anchor_among_the_three_nearest(self):
        ids = torch.tensor([[5, 8, 9], [8, 9, 5], [8, 9, 7], [8, 2, 5], [5, 2, 1]])
        assert self.LENS.classes_of(ids).tolist() == [DEAD, DEAD, ALIVE, SINK, DEAD]

    def test_by_cosine(self):
        axes = torch.eye(8)  # word n points along axis n
        lens = Lens(vocabulary=8, sink=(1,), dead=(5,))
        tokens = torch.tensor([[0, 9, 3, 2, 1, 0.0, 0, 0], [0, 0, 3, 2, 0, 1, 0, 0]])
        tokens = torch.cat([tokens, torch.tensor([[0, 0, 4, 3, 2, 1.0, 0, 0]])])
        assert lens.classify(tokens, axes).tolist() == [SINK, DEAD, ALIVE]

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            ({"vocabulary": 9}, "there is no anchor"),
            ({"vocabulary": 9, "sink": [3], "dead": [3]}, "stands twice"),
            ({"vocabulary": 9, "dead": [9]}, "9 is no token of a vocabulary of 9"),
            ({"vocabulary": 9, "dead": ["1"]}, "dead.0: .*integer"),
            ({"vocabulary": 9, "died": [1]}, "unknown key 'died'.*did you mean 'dead'"),
        ],
    )
    def test_files_that_cannot_be(self, tmp_path, said, why):
        (tmp_path / "lens.json").write_text(json.dumps(said))
        with pytest.raises(ValueError, match=rf"lens.json: .*{why}"):
            Lens.load(tmp_path / "lens.json")

    def test_written_and_read(self, tmp_path):
        self.LENS.save(tmp_path / "lens.json")
        assert Lens.load(tmp_path / "lens.json") == self.LENS
        with pytest.raises(ValueError, match="no such file: `proactivellm lens` makes it"):
            Lens.load(tmp_path / "none.json")

    def test_what_each_mode_drops(self):
        tokens = torch.stack([WORDS_VD[[1, 5, 7]], WORDS_VD[[8, 9, 2]]])

        def keep(mode):
            pixels = PixelSettings(patch=14, frames=2, merge=2)
            lens = Lens(vocabulary=WORDS, sink=(1, 2), dead=(5,))
            classify = lambda features: lens.classes_of(nearest(features, WORDS_VD, 1))  # noqa: E731
            return Dropper(Dropping.parse(mode), pixels, classify).keep(tokens, tokens).tolist()

        assert keep("dead") == [[True, False, True], [True] * 3]
        assert keep("useless") == [[False, False, True], [True, True, False]]


class TestSearch:
    def test_planted_anchors(self):
        found = search([clip(seed) for seed in range(4)], WORDS_VD)
        assert found.lens == Lens(vocabulary=WORDS, sink=(SINK_WORD,), dead=(DEAD_WORD,))
        sink, dead, alive = (found.classes[name] for name in ("sink", "dead", "alive"))
        assert sink.share >= 0.1 and dead.share >= 1 / 3 and alive.share > 0.5
        assert sink.norm > 3 and dead.norm < 1 and sink.alike > 0.8 and abs(alive.alike) < 0.1
        assert alive.colours == pytest.approx(1, abs=0.1)
        assert found.anchors.keys() == {SINK_WORD, DEAD_WORD}

    def test_one_clip_in_five_may_lack_them(self):
        clips = [clip(seed) for seed in range(5)]
        for word in (SINK_WORD, DEAD_WORD):
            clips[0].features_ND.sub_(9 * WORDS_VD[word])  # nothing is near to them
        assert search(clips, WORDS_VD).lens == search(clips[1:], WORDS_VD).lens
        assert search(clips[:4], WORDS_VD).lens is None  # one in four is too many

    def test_random_tokens_have_none(self):
        for seed in range(0, 30, 3):
            found = search([clip(seed + n, planted=False) for n in range(3)], WORDS_VD)
            assert found.lens is None and found.classes["alive"].share == 1
            assert "which change with the clip" in found.why

    def test_what_differs_between_clips_is_no_anchor(self):
        """Each clip has a vector of its own, all of them near to one word."""
        clips = [clip(seed, planted=False) for seed in range(4)]
        for features, _ in clips:
            features[DEADS] = WORDS_VD[DEAD_WORD] + features[10]
        assert search(clips, WORDS_VD).lens is None

    def test_what_looks_alike_in_all_clips_is_no_anchor(self):
        clips = [clip(seed) for seed in range(4)]
        for _, colours in clips:
            colours[DEADS] = 1.0  # black bars, say
        assert search(clips, WORDS_VD).lens == Lens(vocabulary=WORDS, sink=(SINK_WORD,))

    def test_tokens_that_are_all_alike(self):
        still = [
            Seen(WORDS_VD[3] + random(60, WIDTH, seed=n) / 10, random(60, 12)) for n in range(3)
        ]
        found = search(still, WORDS_VD)
        assert found.lens is None and "all alike (mean cosine 0.9" in found.why

    def test_one_clip_tells_nothing(self):
        with pytest.raises(ValueError, match="1 clip: give two or more"):
            search([clip(0)], WORDS_VD)

    def test_the_same_clip_twice(self):
        assert search([clip(0, planted=False)] * 2, WORDS_VD).lens is None


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def model(request, tmp_path_factory):
    return load(save_tiny_watcher(tmp_path_factory.mktemp("watcher"), family=request.param))


@pytest.fixture
def lens(model):
    """One by which some of the tokens of `noise()` are dead."""
    words = model.front_end.words_VD
    ids = nearest(model.front_end.embed_patches(model.front_end.prepare(noise())), words)
    common = ids.flatten().bincount(minlength=len(words)).argsort(descending=True)
    model.front_end.lens = Lens(vocabulary=len(words), dead=(int(common[3]),))
    yield model.front_end.lens
    model.front_end.lens = None


class TestDropping:
    @pytest.mark.parametrize("layout", ["grouped", "overlapped", "interleaved"])
    @torch.inference_mode()
    def test_the_law(self, model, lens, layout):
        with watching(model, drop_tokens="dead"):
            units = seen(model, noise())[:-1]
        whole = seen(model, noise())[:-1]
        kept = [unit.grid.kept for unit in units]
        for unit, each in zip(units, whole, strict=True):
            classes = lens.classify(each.features, model.front_end.words_VD)
            there = [index for index, place in enumerate(each.grid.rows_in_space()) if place]
            dead = (classes[there] == DEAD).nonzero()[:, 0].tolist()
            assert {*range(6)} - {*unit.grid.kept} == {*dead}
        assert 0 < sum(map(len, kept)) < 24
        before, model.layout = model.layout, LAYOUTS[layout]()
        try:
            found, expected = torch.cat(list(stepped(model, units))), masked(model, units)
        finally:
            model.layout = before
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()

    def test_saved_and_loaded(self, model, lens, tmp_path):
        plain = model.front_end.identity
        with watching(model, drop_tokens="dead"):
            model.save_pretrained(tmp_path)
            assert model.front_end.identity != plain
        again = load(tmp_path).front_end
        assert again.lens == lens and again.settings.drop_tokens == "dead"
        assert again.dropper() is not None

    def test_without_one_that_fits(self, model, tmp_path):
        front_end = model.front_end
        with pytest.raises(ValueError, match=r"no video/lens.json.*`proactivellm lens`"):
            front_end.watch(drop_tokens="dead")
        assert front_end.settings.drop_tokens is None
        Lens(vocabulary=9, dead=(1,)).save(tmp_path / "lens.json")
        with pytest.raises(ValueError, match="the lens is of a vocabulary of 9, and the model has"):
            front_end.watch(drop_tokens=f"dead:{tmp_path / 'lens.json'}")
        assert front_end.lens is None
        with pytest.raises(ValueError, match="give dead"):
            VideoSettings(drop_tokens="dead:lens.json")


def film(folder, number):
    """A clip in which each place has a colour of its own, which changes with every moment."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (4, 2, 3, 3), dtype=np.uint8)
    frames = blocks.repeat(2, 0).repeat(30, 1).repeat(30, 2)[:, :, :88]
    write_clip(folder / f"{number}.mkv", frames, fps=2)
    return str(folder / f"{number}.mkv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher") / "model")


def test_a_recipe_leaves_it_behind_unless_it_trains_adapters(tmp_path):
    """Which leave encoder and words as they are."""
    front_end = load(save_tiny_watcher(tmp_path)).front_end
    front_end.lens = Lens(vocabulary=len(front_end.words_VD), dead=(40,))
    front_end.watch(drop_tokens="dead")
    front_end.save(tmp_path)
    lm, tokenizer = Video().load_backbone(tmp_path)
    made = Video().make_front_end(lm, tokenizer)
    assert made.lens is None and made.settings.drop_tokens is None
    adapted = get_peft_model(lm, LoraConfig(target_modules=["q_proj"]))
    made = Video().make_front_end(adapted, tokenizer)
    assert made.lens == front_end.lens and made.settings.drop_tokens == "dead"


@pytest.fixture
def clips(tmp_path):
    return [film(tmp_path, number) for number in range(3)]


@pytest.fixture
def planted(monkeypatch, folder):
    """An encoder that shows nothing of two places of each moment, and of one that is a sink."""
    words_VD = load(folder).front_end.words_VD

    def embed(front_end, prepared):
        patches = prepared.patches.view(prepared.grid.size, -1)
        features = patches @ random(patches.shape[1], WIDTH) / 20
        places = features.view(-1, 6, WIDTH)
        places[:, [1, 4]] = 0.7 * words_VD[40]
        places[:, 5] = 50 * words_VD[60]
        return features + random(*features.shape, seed=len(features)) / 100

    monkeypatch.setattr(VideoFrontEnd, "embed_patches", embed)


def run(capfd, *words):
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    told = capfd.readouterr()
    return int(ended.value.code or 0), told.out, told.err


class TestCommand:
    def test_found_and_dropped(self, folder, clips, planted, tmp_path, capfd):
        given = [part for clip in clips for part in ("--clip", clip)]
        place = tmp_path / "lens.json"
        code, out, err = run(capfd, "lens", "--model", folder, *given, "--out", place)
        assert not code and str(place) in err
        assert "3 clips: of fewer than 8, an anchor may be a chance" in err
        found = Lens.load(place)
        assert (found.sink, found.dead) == ((60,), (40,))
        lines = [line.replace("│", " ").split() for line in out.splitlines()]
        assert [line[0] for line in lines if "%" in line] == ["alive", "sink", "60", "dead", "40"]
        (dead,) = (line for line in lines if line[:1] == ["dead"])
        assert float(dead[1]) == pytest.approx(100 / 3, abs=0.1) and float(dead[4]) > 0.9
        log = tmp_path / "log"
        stream = ["stream", "--model", folder, "--input", clips[0], "--log", log, "--drop-tokens"]
        for mode, share in (("dead", 4 / 6), ("useless", 3 / 6)):
            assert not run(capfd, *stream, f"{mode}:{place}")[0]
            assert json.loads(log.read_text().splitlines()[-1])["kept_share"] == share

    def test_beside_the_model(self, clips, planted, tmp_path, capfd):
        folder = save_tiny_watcher(tmp_path / "model")
        given = [part for clip in clips for part in ("--clip", clip)]
        stream = ["stream", "--model", folder, "--input", clips[0], "--drop-tokens", "dead"]
        code, _, err = run(capfd, *stream)
        assert code == 2 and "no video/lens.json" in err
        assert not run(capfd, "lens", "--model", folder, *given)[0]
        assert Lens.load(folder / "video" / "lens.json").dead == (40,)
        assert not run(capfd, *stream)[0]
        bench = ["bench", "video", "--model", folder, "--clip", clips[0], "--drop-tokens", "dead"]
        assert not run(capfd, *bench, "--look", "vica:1", "--out", tmp_path / "bench")[0]
        result = json.loads((tmp_path / "bench" / "bench.json").read_text())["suites"]["video"]
        assert result["drop_tokens"] == "dead" and result["look"] == "vica:1"
        assert result["clips"][0]["kept_share"] == pytest.approx(4 / 6)

    def test_random_weights_have_none(self, folder, clips, tmp_path, capfd):
        given = [part for clip in clips for part in ("--clip", clip)]
        place = tmp_path / "lens.json"
        code, _, err = run(capfd, "lens", "--model", folder, *given, "--out", place)
        assert not code and "no anchor was found, and nothing written" in err
        assert not place.exists()

    def test_what_cannot_be(self, folder, clips, tmp_path, capfd):
        for words, why in (
            (("--clip", clips[0]), "one --clip: give two or more"),
            (("--clip", clips[0], "--clip", tmp_path / "no.mp4"), "no.mp4: there is no such file"),
            ((*("--clip", clips[0]) * 2, "--out", clips[0]), "--out"),
            ((*("--clip", clips[0]) * 2, "--out", tmp_path / "a" / "b"), "give a writable file"),
        ):
            code, out, err = run(capfd, "lens", "--model", folder, *words)
            assert code == 2 and not out and why in err.splitlines()[-1], err


def test_what_is_looked_at(folder, clips):
    """The tokens of a clip as the LM reads them, and the mean colours of their places."""
    model = load(folder)
    features, colours = look(model.front_end, clips[0])
    whole = seen(model, np.concatenate([*model.front_end.read([clips[0]]).blocks]), (8,))[:-1]
    assert torch.allclose(features, torch.cat([unit.features for unit in whole]), atol=1e-5)
    assert colours.shape == (24, 4 * 3)
    pixels = model.front_end.settings.pixels
    spread = colours.view(24, 4, 3) * torch.tensor(pixels.std) + torch.tensor(pixels.mean)
    assert 0 <= spread.min() < 0.1 < 0.9 < spread.max() <= 1
