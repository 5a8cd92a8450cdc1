"""The policy of those who name none."""

import shutil
import types
from pathlib import Path

import pytest

from proactivellm.backbone.bundled import bundled_models
from proactivellm.cli.policies import choose_policy
from proactivellm.policy.calibration import Calibration


def beside(folder: Path, listens: bool = False, kind: str = "speech") -> types.SimpleNamespace:
    """What is asked of a model whose policy is chosen."""
    front_end = types.SimpleNamespace(kind=kind) if listens else None
    return types.SimpleNamespace(
        folder=folder, front_end=front_end, num_heads=(4, 4), thinking=None
    )


@pytest.mark.parametrize("name", bundled_models())
def test_every_bundled_model_has_a_default_that_its_table_resolves(name: str) -> None:
    folder = bundled_models()[name]
    listens = (folder / "speech").is_dir()
    policy = choose_policy(beside(folder, listens), None, listens)  # type: ignore[arg-type]
    assert policy.name != "wait-k"  # which is for models without a table


def test_of_a_video_the_model_itself_says_when_it_begins(tmp_path: Path) -> None:
    watches = beside(tmp_path, listens=True, kind="video")
    assert choose_policy(watches, None, True).spec == "wait-k:k=1,stride=0.001"  # type: ignore[arg-type]
    assert choose_policy(beside(tmp_path, True), None, True).spec == "wait-k:k=2,stride=2"  # type: ignore[arg-type]


def test_a_target_out_of_range_is_an_error_and_no_other_policy(tmp_path: Path) -> None:
    folder = bundled_models()["lookup-qa"]
    shutil.copy(folder / "calibration.json", tmp_path)
    table = Calibration.load(tmp_path).model_copy(update={"default": None})
    table.save(tmp_path)
    with pytest.raises(ValueError, match=r"outside the calibrated range, laal 6\.17 to 40\.9; "):
        choose_policy(beside(tmp_path), "entropy:laal=3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^no default policy: .* 6\.17 to 40\.9; .*--policy$"):
        choose_policy(beside(tmp_path), None)  # type: ignore[arg-type]
    spec = choose_policy(beside(folder), None).spec  # type: ignore[arg-type]
    assert spec == "entropy:threshold=0.231178,min_lag=1"
    newer = table.merged(table.model_copy(update={"default": "entropy:1"}))
    assert newer.default == newer.merged(table).default == "entropy:1"


def test_no_table_and_one_of_recordings_for_a_text(tmp_path: Path) -> None:
    speech = bundled_models()["speech-en"]
    for model in (beside(tmp_path), beside(speech, listens=True)):
        assert choose_policy(model, None).spec == "wait-k:3"  # type: ignore[arg-type]
