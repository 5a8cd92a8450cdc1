"""Intervals and paired differences: against formulas, sacrebleu, and what must not be found."""

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from tests.metrics.instances import make_log

from proactivellm.metrics.bootstrap import (
    Statistics,
    differences,
    intervals,
    mean,
    ratio,
    resample,
)
from proactivellm.metrics.quality import bleu


def normal(size: int, seed: int, shift: float = 0.0) -> list[float | None]:
    return list(np.random.default_rng(seed).normal(shift, 1.0, size))


def test_the_mean_leaves_out_what_is_undefined() -> None:
    values = mean([1.0, None, 4.0])
    assert values.corpus() == pytest.approx(2.5) and values.num_defined() == 2
    assert mean([None, None]).corpus() is None


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    # 1.96 standard errors, up to the noise of 4000 resamples (about 2%).
    sample = normal(400, seed=1)
    width = intervals({"x": mean(sample)}, 4000)["x"]
    assert width == pytest.approx(1.96 * np.std(sample) / 20, rel=0.06)


def test_the_interval_of_bleu_is_sacrebleus() -> None:
    log = make_log(200)
    predictions, references = ([getattr(i, k) for i in log] for k in ("prediction", "reference"))
    ours = intervals({"BLEU": bleu(predictions, references)}, 1000)["BLEU"]
    theirs = BLEU().corpus_score(predictions, [references], n_bootstrap=1000)
    assert ours == pytest.approx(theirs._ci, rel=0.1)


def test_all_metrics_share_their_resamples() -> None:
    sample = normal(50, seed=2)
    doubled = [2 * value for value in sample if value is not None]
    drawn = resample({"x": mean(sample), "y": mean(doubled)}, 30)
    assert drawn["y"] == pytest.approx(2 * drawn["x"])
    assert resample({"y": mean(doubled)}, 30)["y"] == pytest.approx(drawn["y"])  # the seed's
    other = resample({"y": mean(doubled)}, 30, seed=1)["y"]
    assert not np.allclose(other, drawn["y"])


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = {"x": mean(normal(50, seed=2))}
    whole = resample(sample, 20)["x"]
    monkeypatch.setattr("proactivellm.metrics.bootstrap._CELLS_AT_ONCE", 150)
    assert resample(sample, 20)["x"] == pytest.approx(whole)


def test_no_interval_where_nothing_can_be_resampled() -> None:
    assert intervals({"x": mean([1.0])}, 100) == {}
    assert intervals({"x": mean([1.0, 2.0])}, 0) == {}
    found = intervals({"x": mean([1.0, None, None]), "y": mean([1.0, 1.0, 1.0])}, 100)
    assert found == {"y": 0.0}
    assert intervals({"x": mean([1.0, None])}, 100) == {}
    nothing = Statistics(np.zeros((3, 2)), ratio)
    assert intervals({"x": nothing}, 100) == {}
    # Two values of forty: some resamples hold neither, and do not count.
    rare: list[float | None] = [1.0, 3.0, *[None] * 38]
    assert intervals({"x": mean(rare)}, 200) == {"x": pytest.approx(1.0)}


def test_a_difference_and_its_interval() -> None:
    first, second = normal(300, seed=3), normal(300, seed=4, shift=0.5)
    (found,) = differences({"x": mean(first)}, {"x": mean(second)}, 2000).values()
    gaps = np.array(second, float) - np.array(first, float)
    assert found.difference == pytest.approx(found.second - found.first)
    assert found.difference == pytest.approx(gaps.mean())
    error = gaps.std() / np.sqrt(300)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert found.low < found.difference < found.high and found.num_instances == 300
    assert found.p == pytest.approx(1 / 2001)  # six standard errors: never 0


def test_p_is_that_of_random_sign_flips() -> None:
    """Near the border of significance, against the permutation test of paired means."""
    gaps = np.random.default_rng(5).normal(0.0, 1.0, 200)
    gaps += 2.0 * gaps.std() / np.sqrt(200) - gaps.mean()  # two standard errors: p = 0.046
    (found,) = differences({"x": mean([0.0] * 200)}, {"x": mean(list(gaps))}, 4000).values()
    flips = np.random.default_rng(6).choice([-1.0, 1.0], size=(4000, 200))
    p_flips = np.mean(np.abs((flips * gaps).mean(axis=1)) >= abs(gaps.mean()))
    assert found.p == pytest.approx(p_flips, abs=0.02)
    assert found.p == pytest.approx(0.046, abs=0.02)


def test_a_true_null_is_rejected_as_often_as_promised() -> None:
    # 300 pairs of systems that do not differ; of p <= 0.05, 15 are expected, 7 to 26 are within
    # three standard deviations.
    rejected = sum(
        differences(
            {"x": mean(normal(60, seed=2 * trial))},
            {"x": mean(normal(60, seed=2 * trial + 1))},
            200,
        )["x"].p
        <= 0.05
        for trial in range(300)
    )
    assert 7 <= rejected <= 26


def test_a_system_does_not_differ_from_itself() -> None:
    same = {"x": mean(normal(20, seed=7))}
    found = differences(same, same, 100)["x"]
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_means_are_paired_where_both_have_a_value() -> None:
    found = differences({"x": mean([1.0, 2.0, None])}, {"x": mean([None, 3.0, 5.0])}, 100)["x"]
    assert (found.first, found.second, found.difference, found.num_instances) == (2.0, 3.0, 1.0, 1)
    assert differences({"x": mean([1.0, None])}, {"x": mean([None, 3.0])}, 100) == {}
    assert differences({"x": mean([1.0, 2.0])}, {"y": mean([1.0, 3.0])}, 100) == {}


def test_what_cannot_be_compared_is_told() -> None:
    with pytest.raises(ValueError, match="two instances at least"):
        differences({"x": mean([1.0])}, {"x": mean([2.0])}, 100)
    with pytest.raises(ValueError, match="20 resamples are too few"):
        differences({"x": mean([1.0, 2.0])}, {"x": mean([2.0, 1.0])}, 20)
