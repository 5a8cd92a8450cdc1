"""Recipes: what is valid becomes a frozen model; each mistake is one line that names its place."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from proactivellm.files.toml import Strict, load_toml


class Optimisation(Strict):
    learning_rate: float = Field(gt=0)
    epochs: int = 2
    betas: tuple[float, float] = (0.9, 0.999)


class WaitK(Strict):
    name: Literal["wait-k"]
    k: int


class Entropy(Strict):
    name: Literal["entropy"]
    threshold: float


class Example(Strict):
    seed: int = 0
    resume: bool = False
    output: Path = Path("out")
    optimisation: Optimisation
    policies: list[WaitK | Entropy] = []
    extra: Optimisation | None = None

    @model_validator(mode="after")
    def _seed_is_natural(self) -> "Example":
        if self.seed < 0:
            raise ValueError("seed must not be negative")
        return self


GOOD = "[optimisation]\nlearning_rate = 5e-5\n"


@pytest.fixture
def recipe(tmp_path: Path):
    """Writes a recipe and loads it; errors come back as a list of lines without the path."""

    def load(content: str | bytes) -> Example | list[str]:
        path = tmp_path / "recipe.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            return load_toml(path, Example)
        except ValueError as error:
            lines = str(error).split("\n")
            assert all(line.startswith(f"{path}: ") for line in lines)
            return [line.removeprefix(f"{path}: ") for line in lines]

    return load


def test_a_valid_recipe_becomes_a_frozen_model(recipe):
    loaded = recipe(f'seed = 3\noutput = "runs/a"\n{GOOD}betas = [0.8, 0.9]\n')
    assert loaded == Example(
        seed=3,
        output=Path("runs/a"),
        optimisation=Optimisation(learning_rate=5e-5, betas=(0.8, 0.9)),
    )
    with pytest.raises(ValidationError, match="frozen"):
        loaded.seed = 4


def test_a_whole_number_is_a_valid_float(recipe):
    assert recipe("[optimisation]\nlearning_rate = 1\n").optimisation.learning_rate == 1.0


def test_an_unknown_key_names_the_nearest_valid_one(recipe):
    assert recipe("[optimisation]\nlearning_rate = 1\nlerning_rate = 5e-5\n") == [
        "unknown key 'lerning_rate' in [optimisation]; did you mean 'learning_rate'?"
    ]


def test_an_unknown_key_at_the_top_level(recipe):
    assert recipe(f"sede = 1\n{GOOD}") == [
        "unknown key 'sede' in the top level; did you mean 'seed'?"
    ]


def test_an_unknown_key_that_resembles_none_lists_the_valid_ones(recipe):
    assert recipe(f"{GOOD}zzz = 1\n") == [
        "unknown key 'zzz' in [optimisation]; valid keys: betas, epochs, learning_rate"
    ]


def test_the_nearest_key_is_found_behind_an_optional_table(recipe):
    assert recipe(f"{GOOD}[extra]\nlearning_rate = 1\nepoch = 5\n") == [
        "unknown key 'epoch' in [extra]; did you mean 'epochs'?"
    ]


def test_the_nearest_key_is_found_in_an_array_of_variants(recipe):
    lines = recipe(f'{GOOD}[[policies]]\nname = "entropy"\nthreshold = 1\ntreshold = 1\n')
    assert any("'treshold'" in line and "did you mean 'threshold'?" in line for line in lines)


def test_every_mistake_has_its_own_line(recipe):
    assert recipe("seeed = 1\n[optimisation]\nepochs = 1.5\n") == [
        "optimisation.learning_rate: required key is missing",
        "optimisation.epochs: Input should be a valid integer, not 1.5",
        "unknown key 'seeed' in the top level; did you mean 'seed'?",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f'seed = "3"\n{GOOD}', "seed: Input should be a valid integer, not '3'"),
        (f"resume = 1\n{GOOD}", "resume: Input should be a valid boolean, not 1"),
        (
            "[optimisation]\nlearning_rate = 0\n",
            "optimisation.learning_rate: Input should be greater than 0, not 0",
        ),
        ("optimisation = [1]\n", "optimisation: Input should be a table, not [1]"),
        (f"seed = -1\n{GOOD}", "seed must not be negative"),
    ],
)
def test_a_wrong_value_is_named_and_never_converted(recipe, content, expected):
    assert recipe(content) == [expected]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("inf", "optimisation.learning_rate: Input should be a finite number, not inf"),
        ("nan", "optimisation.learning_rate: Input should be a finite number, not nan"),
        (f"1\nepochs = {2**63}", "optimisation.epochs: a whole number of more than 64 bits"),
        ("9" * 5000, "not valid TOML: Exceeds the limit"),
        ("[" * 5000, "not valid TOML: nested too deeply"),
    ],
)
def test_numbers_without_end_are_refused(recipe, value, told):
    (line,) = recipe(f"[optimisation]\nlearning_rate = {value}\n")
    assert line.startswith(told)


def test_the_largest_whole_number(recipe):
    assert recipe(f"seed = {2**63 - 1}\n{GOOD}").seed == 2**63 - 1


def test_malformed_toml_names_the_line(recipe):
    (line,) = recipe(f"{GOOD}epochs = = 2\n")
    assert line.startswith("line 3: not valid TOML: ")


def test_toml_that_ends_too_early_names_the_last_line(recipe):
    (line,) = recipe("seed = 1\noutput = [1,\n")
    assert line.startswith("line 2: not valid TOML: ")


def test_invalid_utf8_names_the_line(recipe):
    assert recipe(b'seed = 1\noutput = "caf\xe9"\n') == [
        "line 2: not valid UTF-8; save the file as UTF-8"
    ]


def test_a_missing_file(tmp_path):
    path = tmp_path / "absent.toml"
    with pytest.raises(ValueError) as caught:
        load_toml(path, Example)
    assert str(caught.value) == f"{path}: no such file"


def test_a_folder_is_not_a_recipe(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_toml(tmp_path, Example)
