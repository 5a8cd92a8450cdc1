"""A study on a tiny model: arms are trained, calibrated, evaluated and compared, once."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.train.runs import SCRATCH, SOURCE, write_recipe

from proactivellm.files.toml import load_toml, overlaid
from proactivellm.modality.loading import load
from proactivellm.output.log import read_log
from proactivellm.stream.job import Job
from proactivellm.study.arms import Run, Study
from proactivellm.study.execution import _decide, execute, requests
from proactivellm.study.place import Place, run_recipe
from proactivellm.study.tables import REPORT_FILE, write_report

STUDY = """
title = "A study"
recipe = "recipe.toml"
seeds = [1, 2]
policies = ["offline", "wait-k:1", "wait-k:3", "confidence:quantile=0.5"]
at = [2.0, 2.5]
curves = ["wait-k"]
against = "full"
[sets.some.dev]
tsv = "PAIRS"
limit = 4
[sets.some.test]
tsv = "PAIRS"
limit = 8
[calibration]
policies = ["confidence"]
quantiles = [0.4, 0.6]
min_lags = [1]
max_lags = ["none"]
[arms.base]
about = "where all begin"
policies = ["offline"]
[arms.base.calibration]
policies = []
[arms.full]
about = "KL(full || partial)"
from = "base"
[arms.full.change.optimisation]
epochs = 1
[arms.other]
like = "full"
policies = ["wait-k:2"]
[arms.other.calibration]
policies = []
[arms.shuffled]
shuffle = "full"
policies = ["wait-k:3", "confidence:quantile=0.5", "confidence:laal=99"]
"""
RECIPE = (
    SCRATCH.replace("epochs = 2", "epochs = 4")  # enough to learn that a target ends
    .replace("batch_size = 4", "batch_size = 8")
    .replace("warmup_steps = 3", "warmup_steps = 1")
    .replace("eval_steps = 4\n", "")
)
BASE, FULL = Run("base", None), Run("full", 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Place]:
    folder = tmp_path_factory.mktemp("study")
    write_recipe(folder, RECIPE)
    # A model that has hardly learnt when to end writes until it is stopped: the less, the shorter.
    words = [f"{s} {t} {s} {t} {t}\t{t} {s}\n" for s, t in pairwise(SOURCE)]
    (folder / "pairs.tsv").write_text("".join(words * 3), encoding="utf-8")
    file = folder / "study.toml"
    file.write_text(STUDY.replace("PAIRS", str(folder / "pairs.tsv")), encoding="utf-8")
    study, place = load_toml(file, Study), Place(recipes=folder, out=folder / "out")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:  # pictures of arms are no matter of a study
        patch.setattr("proactivellm.evaluation.evaluate.write_results", lambda *_: None)
        for arm in ("full", "base", "other", "shuffled"):
            for run in study.runs(arm):
                execute(study, run, place)
    write_report(study, place)
    torch.set_num_threads(threads)
    return study, place


def test_the_report_holds_every_arm_and_its_gaps(finished):
    study, place = finished
    report = (place.out / REPORT_FILE).read_text(encoding="utf-8")
    assert report.startswith("# A study\n") and "# Set: some" in report
    for arm in study.arms:
        assert f"| {arm} |" in report
    assert "| shuffled | `wait-k:3` |" in report
    assert "| shuffled | `confidence:quantile=0.5` |" in report
    assert "| full | KL(full \\|\\| partial) |" in report
    assert "LAAL 2.5" in report and "means of seeds 1, 2" in report
    assert (place.out / "some" / "curve.png").stat().st_size > 1000


def test_a_head_is_trained_on_sources_of_its_own(finished, tmp_path, monkeypatch):
    study, place = finished
    model, seen = load(place.model(FULL)), []

    def note(model: object, policies: list[str], jobs: list[Job], *rest: object, **how: object):
        seen.append([job.source for job in jobs])
        raise InterruptedError

    monkeypatch.setattr("proactivellm.study.execution.ensure_head", note)
    dev = study.sets["some"].dev
    other = Place(recipes=place.recipes, out=tmp_path)
    for head in ([], [dev.model_copy(update={"skip": 5, "limit": 2, "join": 2})]):
        changed = study.model_copy(update={"head": head})
        with pytest.raises(InterruptedError):
            _decide(changed, (FULL, "some"), other, model, 4, None)
    pairs = [line.split("\t")[0] for line in Path(str(dev.tsv)).read_text().splitlines()]
    assert seen == [pairs[:4], [" ".join(pairs[10:12]), " ".join(pairs[12:14])]]


def test_a_head_without_its_sources_is_told_before_anything_is_trained(finished, tmp_path):
    study, place = finished
    missing = study.sets["some"].dev.model_copy(update={"tsv": "nowhere.tsv"})
    with pytest.raises(ValueError, match=r"nowhere\.tsv"):
        other = Place(recipes=place.recipes, out=tmp_path / "out")
        execute(study.model_copy(update={"head": [missing]}), FULL, other)
    assert not (tmp_path / "out").exists()


def test_arms_share_the_model_they_are_like(finished):
    study, place = finished
    models = [path.relative_to(place.out) for path in place.out.rglob("model")]
    folders = ["base/model", "full/seed-1/model", "full/seed-2/model"]
    assert sorted(map(str, models)) == folders
    assert study.trained(Run("other", 2)) == Run("full", 2)


def weights(place: Place, run: Run) -> torch.Tensor:
    found = load_file(place.model(run) / "model.safetensors")
    return found["model.embed_tokens.weight"].float()


def test_seeds_part_where_a_branch_begins(finished):
    study, place = finished
    recipe = run_recipe(study, FULL, place)
    assert recipe.backbone.pretrained == str(place.model(Run("base", None)))
    assert recipe.optimisation.seed == 1 and study.runs("base") == [Run("base", None)]
    base = weights(place, Run("base", None))
    first, second = (weights(place, Run("full", seed)) for seed in study.seeds)
    assert first.shape == base.shape and not torch.equal(first, second)
    apart = torch.randn_like(base).mul(base.std())  # what two beginnings would be apart
    assert (first - base).norm() < apart.norm() and (second - base).norm() < apart.norm()


def test_changes_lie_over_the_recipe(finished):
    study, place = finished
    changed = run_recipe(study, FULL, place)
    plain = run_recipe(study, Run("base", None), place)
    assert changed.optimisation.epochs == 1 and plain.optimisation.epochs == 4
    assert changed.objective == plain.objective
    assert overlaid({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}}) == {
        "a": {"b": 4, "c": 2},
        "d": {"e": 5},
    }


def test_shuffled_schedules_read_as_much_for_as_many_words(finished):
    _, place = finished
    folder = "confidence_quantile=0.5"
    own = read_log(place.results(FULL, "some") / folder / "instances.log")
    shuffled = read_log(place.results(Run("shuffled", 1), "some") / folder / "instances.log")
    assert [i.source for i in own] == [i.source for i in shuffled]
    differ = 0
    for before, after in zip(own, shuffled, strict=True):
        words = min(len(before.delays), len(after.delays))
        if words == len(before.delays) and words:
            assert after.delays[words - 1] == before.delays[-1]  # the same reads in all
        differ += list(before.delays[:words]) != list(after.delays[:words])
    assert differ


def test_what_is_done_is_not_done_again(finished):
    study, place = finished
    files = [path for path in place.out.rglob("*") if path.name in ("instances.log", "config.json")]
    before = {path: path.stat().st_mtime_ns for path in files if path.parent.name == "model"}
    logs = {path: path.read_bytes() for path in files if path.name == "instances.log"}
    execute(study, FULL, place)
    assert before and before == {path: path.stat().st_mtime_ns for path in before}
    assert logs == {path: path.read_bytes() for path in logs}


def test_an_arm_that_was_not_run_is_named(finished, tmp_path):
    study, place = finished
    with pytest.raises(ValueError, match="no arm of the study has results"):
        write_report(study, Place(recipes=place.recipes, out=tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('like = "full"', 'like = "ful"', "'ful' is no other arm: base, full, other"),
        ('from = "base"', 'from = "bas"', "arms.full: 'bas' is no other arm"),
        ('from = "base"', 'from = "other"', "`from` does not lead to an arm that begins anew"),
        ("full.change.optimisation", "full.change.backbone", "`from` gives the backbone"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "one of them is given twice"),
        ("[sets.some.test]", "[test]", "sets.some.test: required key is missing"),
        ("[sets.some.dev]", "[dev]", "sets.some.dev: required key is missing"),
        (
            "[sets.some.dev]",
            '[dev]\ntsv = "a"\n[sets.some.dev]',
            "give either both [dev] and [test], or [sets]",
        ),
        ('against = "full"', 'against = "best/wait-k"', "'best/wait-k' begins with no arm"),
        ('recipe = "recipe.toml"', "", "arms.base has no recipe"),
        ('shuffle = "full"', 'shuffle = "full"\nlike = "full"', "`shuffle` borrows all"),
        ('shuffle = "full"', 'shuffle = "other"\nrecipe = "x"', "trains nothing"),
        ("[arms.full]", '[arms."../full"]', "'../full' cannot be the name of a folder"),
        ("max_lags", "max_lag", "unknown key 'max_lag'"),
    ],
)
def test_mistakes_in_a_study_are_named(tmp_path: Path, old, new, message):
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace(old, new).replace("PAIRS", "pairs.tsv"), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_toml(file, Study)
    assert message in str(caught.value)


def test_a_depth_that_the_model_does_not_have_is_refused_before_it_is_trained(finished, tmp_path):
    study, place = finished
    empty = Place(recipes=place.recipes, out=tmp_path / "empty")
    deep = study.arms["base"].model_copy(update={"depth": 2})
    with pytest.raises(ValueError, match="arms.base: depth 2: its model has none"):
        execute(study.model_copy(update={"arms": study.arms | {"base": deep}}), BASE, empty)
    assert not empty.out.exists()
    thinking = load_toml(Path("recipes/studies/thinking.toml"), Study)
    arm = thinking.arms["batch"].model_copy(update={"depth": 2})
    assert (thinking.conditions(arm).depth, thinking.conditions(arm).step_s) == (2, 1 / 30)


def test_a_change_that_does_not_fit_names_the_arm(finished, tmp_path):
    study, place = finished
    arm = study.arms["full"].model_copy(update={"change": {"objective": {"kl": 0.0}}})
    broken = study.model_copy(update={"arms": study.arms | {"full": arm}})
    with pytest.raises(ValueError, match=r"\(arm full\): unknown key 'kl'"):
        run_recipe(broken, FULL, place)


@pytest.mark.parametrize(
    "file", sorted(Path("recipes/studies").glob("*.toml")), ids=lambda f: f.stem
)
def test_the_studies_in_the_repository_are_whole(file: Path):
    study = load_toml(file, Study)
    place = Place(recipes=file.parent, out=Path("out"))
    for arm in study.arms:
        for run in study.runs(arm):
            run_recipe(study, study.trained(run), place)
        assert requests(study, study.arms[arm])


def test_what_is_counted_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        STUDY.replace("[sets.some.dev]", 'latency_unit = "words"\n[sets.some.dev]', 1),
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="latency unit 'words': give word, char, or spm:FILE"):
        load_toml(file, Study)
    file.write_text(
        STUDY.replace("[sets.some.dev]", 'bleu_tokenize = "zh"\n[sets.some.dev]', 1),
        encoding="utf-8",
    )
    assert load_toml(file, Study).counting.tokenize == "zh"
