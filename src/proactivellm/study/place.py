"""Where a study lies, and the recipes by which it trains: folders by run and set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proactivellm.files.toml import overlaid, read_toml, validated
from proactivellm.metrics.folders import SCORES_FILE
from proactivellm.policy.calibration import CALIBRATION_FILE
from proactivellm.study.arms import Run, Study
from proactivellm.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder from which recipes are found, and that of the results, with one for each arm."""

    recipes: Path
    out: Path

    def model(self, run: Run) -> Path:
        """The folder of a run's model."""
        return self.out / run.name / "model"

    def results(self, run: Run, data: str = "") -> Path:
        """The evaluation folder of a run on a set."""
        return self.out / run.name / data / "results"

    def calibration(self, run: Run, data: str = "") -> Path:
        """The calibration table of a run on a set."""
        return self.out / run.name / data / CALIBRATION_FILE

    def has_results(self, run: Run, data: str = "") -> bool:
        """Whether a run has been evaluated: its first policy has scores."""
        return (self.results(run, data) / SCORES_FILE).exists()


def run_recipe(study: Study, run: Run, place: Place) -> Recipe:
    """The training recipe of a run: the study's, or its arm's, with changes, seed and backbone.

    Raises:
        ValueError: the recipe with the changes does not fit.
    """
    arm = study.arms[run.arm]
    file = place.recipes / str(arm.recipe or study.recipe)
    data = overlaid(read_toml(file), arm.change)
    if run.seed is not None:
        data = overlaid(data, {"optimisation": {"seed": run.seed}})
    if arm.origin is not None:
        kept: dict[str, Any] = data.get("backbone", {})
        origin = {"pretrained": str(place.model(study.run(arm.origin, run.seed)))}
        trusted = {key: kept[key] for key in ("trust_remote_code",) if key in kept}
        data["backbone"] = origin | trusted
    return validated(data, Recipe, f"{file} (arm {run.arm})")
