"""The control token: its labels, its loss, and a model that follows the trace it was taught."""

import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models import save_tiny
from tests.tokenizers import build
from tests.train.runs import PRETRAINED, SCRATCH, SOURCE, TARGET, make_recipe

from proactivellm.backbone.prompt import PromptIds, load_settings
from proactivellm.core.packing import IGNORE
from proactivellm.evaluation.calibrate import Grid, calibrate
from proactivellm.files.toml import load_toml
from proactivellm.modality.loading import load
from proactivellm.modality.text import TextSegmenter
from proactivellm.output.instance import Instance
from proactivellm.output.log import write_instance
from proactivellm.policy.spec import parse_policy
from proactivellm.session.session import Session
from proactivellm.stream import Job
from proactivellm.tasks.data import DataSource, read_items
from proactivellm.tasks.item import Item
from proactivellm.train.actions import NO_ACTION, READ, WRITE, actions, joined_delays, trace_of
from proactivellm.train.objectives.control import Control, ControlSettings, refused_by_full
from proactivellm.train.objectives.distillation import Distillation
from proactivellm.train.objectives.likelihood import Likelihood
from proactivellm.train.recipe import Objectives, Recipe
from proactivellm.train.rows import Control as ControlRows
from proactivellm.train.rows import row_sums, view_scores
from proactivellm.train.run import train
from proactivellm.train.samples import ItemEncoder, SampleEncoder
from proactivellm.train.tokenizer import train_tokenizer

R, V, D, READ_ID = 13, 20, 6, 7
MARK = "und"  # of a source: nothing is to be written before it has been read
LESSON = """
[objective]
batch_weight = 0.0
kl_weight = 0.0
control_weight = 3.0
control_trace = "data"
profile = "wait-k"
wait_k = [1, 8]
"""
CONTROL = "[objective]\ncontrol_weight = 1.0\n"


def lessons(count: int, seed: int) -> Iterator[tuple[list[str], list[str], int]]:
    """Source, target, and the place of the mark in the source, from 1."""
    rng = np.random.default_rng(seed)
    words = [word for word in SOURCE if word != MARK]
    for _ in range(count):
        source = [str(word) for word in rng.choice(words, rng.integers(4, 9))]
        place = int(rng.integers(1, len(source)))
        source[place - 1] = MARK
        yield source, [str(word) for word in rng.choice(TARGET, rng.integers(1, 4))], place


def write_log(path: Path, count: int, **changed: object) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for index, (source, target, place) in enumerate(lessons(count, 0)):
            told = {
                "index": index,
                "source": " ".join(source),
                "source_length": len(source),
                "prediction": " ".join(target),
                "prediction_length": len(target),
                "delays": [place] * len(target),
                "elapsed": [0] * len(target),
                "token_delays": [],
                "policy": "fixed",
                "forwards": None,
                "tokens": None,
            }
            write_instance(file, Instance(**{**told, **changed}))
    return path


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that learnt from a log to wait for the mark."""
    return taught_by(LESSON, tmp_path_factory.mktemp("taught"))


def taught_by(lesson: str, folder: Path) -> Path:
    """A small model that was trained on a log of lessons."""
    text = SCRATCH.replace('tsv = "PAIRS"', f'log = "{write_log(folder / "log", 640)}"')
    for old, new in (
        ("concat = [1, 2]", "concat = [1, 1]"),
        ("epochs = 2", "epochs = 1"),
        ("batch_size = 4", "batch_size = 8"),
        ("save_steps = 3\neval_steps = 4\nlog_steps = 1\n", "save_steps = 99\nlog_steps = 10\n"),
    ):
        assert old in text
        text = text.replace(old, new)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = train(make_recipe(folder, text + lesson), folder / "out")
    torch.set_num_threads(threads)
    return out


class TestActions:
    def test_are_those_of_the_trace_where_a_session_asks(self) -> None:
        g, trace, decides = [2, 2, 3, 5, 5], [3, 3, 3, 6, 6], [True, False, True, True, False]
        wanted = [READ, NO_ACTION, WRITE, READ, NO_ACTION]
        assert actions(g, trace, decides, 6) == wanted
        assert actions(g, None, decides, 6) == [WRITE, NO_ACTION, WRITE, WRITE, NO_ACTION]
        assert actions(g, trace, decides, 5) == [*wanted[:3], NO_ACTION, NO_ACTION]  # all is read

    def test_of_joined_items_follow_each_other(self) -> None:
        tokenizer = train_tokenizer(["aa bb cc dd a b c d."] * 9, 300)
        prompt = PromptIds(source_head=(), source_tail=(), target_head=(1,))
        encoder = SampleEncoder(tokenizer, prompt, tokenizer.eos_token_id)
        items = [
            Item("aa bb cc", "dd ca.", delays=(1, 3)),
            Item("cc dd", "bb", delays=(2,)),
        ]
        target = tokenizer.encode("dd ca. bb") + [tokenizer.eos_token_id]
        words = encoder.word_index(target)
        assert words[-1] == 2 and len(words) > 3
        by_word = [1, 3, 5]
        wanted = [*(by_word[word] for word in words), 5]
        delays = joined_delays(items)
        assert trace_of(delays, target, tokenizer) == wanted

    def test_of_characters_where_there_are_no_spaces(self) -> None:
        tokenizer = build("byte_level")
        prompt = PromptIds(source_head=(), source_tail=(), target_head=(1,))
        encoder = SampleEncoder(tokenizer, prompt, 2)
        items = [Item("我们在", "今天。", delays=(1, 2, 3)), Item("读书", "你好", delays=(1, 2))]
        sample = ItemEncoder(encoder).join(items)
        target = sample.written["target"].tokens
        sizes = [len(piece) for piece in tokenizer.convert_ids_to_tokens(target[:-1])]  # bytes
        # Of three bytes each: 今, 天, 。, 你, 好; the last two were written after 1 and 2 of 读书.
        wanted = [(1, 2, 3, 4, 5)[(end - 1) // 3] for end in accumulate(sizes)]
        assert len(wanted) > 4
        assert trace_of(joined_delays(items), target, tokenizer) == [*wanted, 5]


class TestTheLoss:
    @pytest.fixture
    def rows(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.nn.Linear]:
        """Hidden states of three views, labels, actions, an output layer."""
        torch.manual_seed(1)
        label = torch.randint(0, V, (R,))
        label[label == READ_ID] = V - 1
        action = torch.tensor([NO_ACTION, WRITE, READ])[torch.randint(0, 3, (3, R))]
        return torch.randn(3, R, D), label.expand(3, R), action, torch.nn.Linear(D, V, bias=False)

    @pytest.mark.parametrize("chunk", [4, R])
    def test_is_what_the_token_adds_to_the_cross_entropy(self, rows, chunk) -> None:
        hidden, label, action, output = rows
        table = Objectives(control_weight=1.0, control_trace="data", num_partial=2)
        terms = [Likelihood(table), Control(table)]
        # No row READs with a token of its own, so that the sum is a plain one over all tokens.
        every = torch.where(action == NO_ACTION, WRITE, action)
        sums = row_sums(terms, output, (hidden, label), True, chunk, ControlRows(READ_ID, every))
        log_p = output(hidden).log_softmax(-1)
        reads = every[1:] == READ
        own = log_p[1:].gather(-1, label[1:, :, None])[..., 0]
        plain = -torch.where(reads, log_p[1:, :, READ_ID], own).sum() / 2
        # What L_MSLM learns where READ is right: the token, were the row to write.
        odds = log_p[1:, :, READ_ID].exp()
        more = -(own - torch.log1p(-odds))[reads].sum() / 2
        assert (sums[1] + sums[2]).item() == pytest.approx((plain + more).item(), rel=1e-5)

    def test_leaves_rows_out_that_nobody_asks_about(self, rows) -> None:
        hidden, label, action, output = rows
        table = ControlSettings(control_weight=1.0, control_trace="data", num_partial=2)
        (mean,) = row_sums(
            [Control(table)], output, (hidden, label), True, R, ControlRows(READ_ID, action)
        )
        p = output(hidden).softmax(-1)[..., READ_ID]
        plain = [
            -torch.log(p[view, r] if action[view, r] == READ else 1 - p[view, r])
            for view in (1, 2)
            for r in range(R)
            if action[view, r] != IGNORE
        ]
        assert 5 < len(plain) < 2 * R
        assert mean.item() == pytest.approx(sum(plain).item() / 2, rel=1e-5)

    def test_is_labelled_by_the_full_view(self, rows) -> None:
        hidden, label, action, output = rows
        table = ControlSettings(control_weight=1.0, num_partial=2)
        objective = Control(table)
        assert objective.needs_full
        (mean,) = row_sums(
            [objective], output, (hidden, label), True, R, ControlRows(READ_ID, action)
        )
        logits, plain, labels = output(hidden).detach(), 0.0, []
        written = [token for token in range(V) if token != READ_ID]
        for view, r in ((v, r) for v in (1, 2) for r in range(R) if action[v, r] != NO_ACTION):
            favourite = max(written, key=lambda token: float(logits[view, r, token]))
            full = logits[0, r].softmax(-1)
            labels.append(bool(full[favourite] < 0.3 * full[written].max()))
            p = float(logits[view, r].softmax(-1)[READ_ID])
            plain -= np.log(p if labels[-1] else 1 - p)
        assert 0 < sum(labels) < len(labels)
        assert mean.item() == pytest.approx(plain / 2, rel=1e-5)
        same = logits[1].log_softmax(-1)
        assert not refused_by_full(same, same).any()

    def test_is_none_of_the_other_objectives_business(self, rows) -> None:
        """They see what a model without the token would show them, smoothing included."""
        hidden, label, _, output = rows
        kept = [token for token in range(V) if token != READ_ID]
        without = torch.nn.Linear(D, V - 1, bias=False)
        without.weight = torch.nn.Parameter(output.weight[kept].detach())
        shifted = torch.tensor([kept.index(int(token)) for token in label[0]]).expand(3, R)
        table = Objectives(kl_weight=1.0, label_smoothing=0.1, num_partial=2, kl_top_k=V)
        terms = [Likelihood(table), Distillation(table)]
        ours = row_sums(terms, output, (hidden, label), True, R, ControlRows(READ_ID))
        theirs = row_sums(terms, without, (hidden, shifted), True, R)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        ours = view_scores(output, hidden, label, R, READ_ID)
        torch.testing.assert_close(ours, view_scores(without, hidden, shifted, R))


def first_delay(model, spec: str, source: list[str]) -> int:
    session = Session(model, parse_policy(spec))
    for unit in TextSegmenter(model.tokenizer).segment(" ".join(source)):
        session.push(unit)
    return session.state.delays[0]


def test_a_model_that_was_taught_a_trace_follows_it(taught: Path, tmp_path: Path) -> None:
    assert load_settings(taught).read_token == "<READ>"
    copied = tmp_path / "elsewhere"
    shutil.copytree(taught, copied, ignore=shutil.ignore_patterns("checkpoint-*"))
    model = load(copied)  # which checks the law, of the control token's logit too
    unseen = list(lessons(12, 1))
    assert len({place for *_, place in unseen}) > 3
    assert [first_delay(model, "control:0.5", source) for source, *_ in unseen] == [
        place for *_, place in unseen
    ]
    # The bounds are those of any policy.
    source, _, place = next(each for each in unseen if each[2] > 3)
    assert first_delay(model, "control:0.5,max_lag=2", source) == 2
    assert first_delay(model, f"control:0.5,min_lag={place + 1}", source) == place + 1


def test_its_threshold_is_calibrated(taught: Path) -> None:
    jobs = [
        Job(index=index, source=" ".join(source), reference=" ".join(target))
        for index, (source, target, _) in enumerate(lessons(12, 3))
    ]
    grid = Grid(quantiles=(0.2, 0.8), min_lags=(1,), max_lags=(None,))
    table = calibrate(load(taught), jobs, ["control"], grid=grid)
    early, late = sorted(table.points, key=lambda point: point.LAAL)
    assert early.threshold > late.threshold  # it READs while the token is more probable
    # So small a model writes little that is right, which leaves its points out.
    points = tuple(each.model_copy(update={"degenerate": False}) for each in table.points)
    table = table.model_copy(update={"points": points})
    middle = parse_policy(f"control:laal={(early.LAAL + late.LAAL) / 2}", table)
    odds = [p / (1 - p) for p in (early.threshold, middle.threshold, late.threshold)]
    assert odds[1] == pytest.approx((odds[0] * odds[2]) ** 0.5, rel=1e-4)  # half-way by log-odds


@pytest.mark.parametrize("family", ["llama", "qwen3"])  # an output layer of its own, and a tied one
def test_adapters_train_the_row_of_the_token(tmp_path: Path, family: str) -> None:
    backbone = save_tiny(family, tmp_path / "backbone", chat=True)
    text = PRETRAINED + CONTROL + "[lora]\nr = 4\nalpha = 8\n"
    recipe = make_recipe(tmp_path, text, backbone)
    out = train(recipe, tmp_path / "out")
    model = load(out)
    before, after = (load_file(folder / "model.safetensors") for folder in (backbone, out))
    assert before.keys() == after.keys()
    name = "lm_head.weight" if family == "llama" else "model.embed_tokens.weight"
    # The tokenizer had rows to spare: one of them has become that of the token.
    moved = (before[name] != after[name]).any(-1).nonzero()[:, 0].tolist()
    assert moved == [model.read_id]
    begun = before[name][: model.read_id].mean(0)
    assert not torch.allclose(after[name][model.read_id], begun, atol=1e-3)
    # What was interrupted goes on from its checkpoint to the same end.
    shutil.rmtree(out / "checkpoint-5", ignore_errors=True)
    kept = sorted(int(path.name.split("-")[1]) for path in out.glob("checkpoint-*"))
    shutil.rmtree(out / f"checkpoint-{kept[-1]}")
    for path in [out / "training_log.jsonl", *out.glob("*.safetensors")]:
        path.unlink()
    again = load_file(train(recipe, out) / "model.safetensors")
    assert all(torch.equal(again[key], after[key]) for key in after)


def test_a_vocabulary_without_room_grows_by_the_token(tmp_path: Path, taught: Path) -> None:
    """A further training keeps the token, whatever it teaches."""
    text = PRETRAINED.replace('instruction = "To English: "\n', "")
    recipe = make_recipe(tmp_path, text, taught)
    further = load(train(recipe, tmp_path / "further"))
    assert further.settings == load_settings(taught)
    assert further.read_id == further.parts.output_layer.weight.shape[0] - 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('control_weight = 1.0\ncontrol_trace = "data"', "give each .data.train. as `log`"),
        ("control_weight = 1.0\nnum_partial = 0\nkl_weight = 0\nmslm_weight = 0", "could READ"),
        ('control_trace = "model"', "control_trace"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_recipe(tmp_path, f"{SCRATCH}[objective]\n{keys}\n")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source_type": "speech"}, "index 0: its delays are of words in speech"),
        (
            {
                "prediction": "abc",
                "prediction_length": 3,
                "latency_unit": "spm",
                "prediction_spm": ["a", "b", "c"],
                "delays": [1, 1, 1],
                "elapsed": [0, 0, 0],
            },
            "its delays are of spms in text",
        ),
        (
            {"prediction": "a", "prediction_length": 1, "delays": [1.5], "elapsed": [0]},
            "no whole number of source units",
        ),
    ],
)
def test_a_log_that_holds_no_trace_is_refused(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_items(DataSource(log=str(write_log(tmp_path / "log", 1, **changed))))


def test_a_log_of_characters_is_a_trace_of_them(tmp_path: Path) -> None:
    told = {"prediction": "我用 AB。", "prediction_length": 5, "latency_unit": "char"}
    told |= {"delays": [1, 2, 2, 3, 4], "elapsed": [0] * 5, "source_length": 9}
    (item,) = read_items(DataSource(log=str(write_log(tmp_path / "log", 1, **told))))
    assert item.target == "我用 AB。" and item.delays == (1, 2, 4)  # 我, 用, AB。


def test_the_trace_is_part_of_what_a_run_depends_on(tmp_path: Path, taught: Path) -> None:
    recipe = load_toml(taught.parent / "recipe.toml", Recipe)
    log = Path(recipe.data.train.log)
    kept = log.read_text(encoding="utf-8")
    log.write_text(kept.replace('"delays": [1]', '"delays": [0]'), encoding="utf-8")
    assert log.read_text(encoding="utf-8") != kept
    try:
        with pytest.raises(ValueError, match="train_data"):
            train(recipe, taught)
    finally:
        log.write_text(kept, encoding="utf-8")
