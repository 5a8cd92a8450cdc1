"""A study on a tiny model: arms are trained, calibrated, evaluated and compared, once."""

from pathlib import Path

import pytest
import torch
from tests.train.runs import SCRATCH, write_recipe

from proactivellm.files.toml import load_toml
from proactivellm.output.log import read_log
from proactivellm.study.arms import Study, arm_recipe, overlaid
from proactivellm.study.execution import Place, requests, run_arm
from proactivellm.study.tables import REPORT_FILE, write_report

STUDY = """
title = "A study"
recipe = "recipe.toml"
policies = ["offline", "wait-k:1", "wait-k:3", "confidence:quantile=0.5"]
at = [2.0, 2.5]
curves = ["wait-k"]
against = "full"
[dev]
tsv = "PAIRS"
limit = 4
[test]
tsv = "PAIRS"
limit = 8
[calibration]
policies = ["confidence"]
quantiles = [0.4, 0.6]
min_lags = [1]
max_lags = ["none"]
[arms.full]
about = "KL(full || partial)"
[arms.no-spsd.change.objective]
kl_weight = 0.0
[arms.other]
like = "full"
policies = ["wait-k:2"]
[arms.other.calibration]
policies = []
[arms.shuffled]
shuffle = "full"
policies = ["wait-k:3", "confidence:quantile=0.5", "confidence:laal=99"]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Place]:
    folder = tmp_path_factory.mktemp("study")
    write_recipe(folder, SCRATCH.replace("epochs = 2", "epochs = 1")).rename(folder / "recipe.toml")
    file = folder / "study.toml"
    file.write_text(STUDY.replace("PAIRS", str(folder / "pairs.tsv")), encoding="utf-8")
    study, place = load_toml(file, Study), Place(recipes=folder, out=folder / "out")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for arm in study.arms:
        run_arm(study, arm, place)
    write_report(study, place)
    torch.set_num_threads(threads)
    return study, place


def test_the_report_holds_every_arm_and_its_gaps(finished):
    study, place = finished
    report = (place.out / REPORT_FILE).read_text(encoding="utf-8")
    assert report.startswith("# A study\n")
    for arm in study.arms:
        assert f"| {arm} |" in report
    assert "| shuffled | `wait-k:3` |" in report
    assert "| shuffled | `confidence:quantile=0.5` |" in report
    assert "| full | KL(full \\|\\| partial) |" in report
    assert "LAAL 2.5" in report and "| no-spsd | `wait-k:3` |" in report
    assert (place.out / "curve.png").stat().st_size > 1000


def test_arms_share_the_model_they_are_like(finished):
    _, place = finished
    assert place.model("full").exists() and place.model("no-spsd").exists()
    assert not place.model("other").exists() and not place.model("shuffled").exists()


def test_changes_lie_over_the_recipe(finished):
    study, place = finished
    changed = arm_recipe(study, "no-spsd", place.recipes)
    plain = arm_recipe(study, "full", place.recipes)
    assert changed.objective.kl_weight == 0.0 and plain.objective.kl_weight == 0.1
    assert changed.optimisation == plain.optimisation
    assert overlaid({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}}) == {
        "a": {"b": 4, "c": 2},
        "d": {"e": 5},
    }


def test_shuffled_schedules_read_as_much_for_as_many_words(finished):
    _, place = finished
    folder = "confidence_quantile=0.5"
    own = read_log(place.results("full") / folder / "instances.log")
    shuffled = read_log(place.results("shuffled") / folder / "instances.log")
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
    run_arm(study, "full", place)
    assert before and before == {path: path.stat().st_mtime_ns for path in before}
    assert logs == {path: path.read_bytes() for path in logs}


def test_an_arm_that_was_not_run_is_named(finished, tmp_path):
    study, place = finished
    with pytest.raises(ValueError, match="no arm of the study has results"):
        write_report(study, Place(recipes=place.recipes, out=tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('like = "full"', 'like = "ful"', "'ful' is no other arm: full, no-spsd"),
        ('against = "full"', 'against = "best/wait-k"', "'best/wait-k' begins with no arm"),
        ('recipe = "recipe.toml"', "", "arms.full has no recipe"),
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


def test_a_change_that_does_not_fit_names_the_arm(finished, tmp_path):
    study, place = finished
    arm = study.arms["no-spsd"].model_copy(update={"change": {"objective": {"kl": 0.0}}})
    broken = study.model_copy(update={"arms": study.arms | {"no-spsd": arm}})
    with pytest.raises(ValueError, match=r"\(arm no-spsd\): unknown key 'kl'"):
        arm_recipe(broken, "no-spsd", place.recipes)


@pytest.mark.parametrize(
    "file", sorted(Path("recipes/studies").glob("*.toml")), ids=lambda f: f.stem
)
def test_the_studies_in_the_repository_are_whole(file: Path):
    study = load_toml(file, Study)
    for arm in study.arms:
        arm_recipe(study, study.owner(arm), file.parent)
        assert requests(study, study.arms[arm])


def test_what_is_counted_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace("[dev]", 'latency_unit = "words"\n[dev]', 1), encoding="utf-8")
    with pytest.raises(ValueError, match="latency unit 'words': give word, char, or spm:FILE"):
        load_toml(file, Study)
    file.write_text(STUDY.replace("[dev]", 'bleu_tokenize = "zh"\n[dev]', 1), encoding="utf-8")
    assert load_toml(file, Study).counting.tokenize == "zh"
