"""The calibration table: interpolation by hand-worked numbers, choice of options, ranges, files."""

import json
import re

import pytest

from proactivellm.policy.attention import Attention
from proactivellm.policy.calibration import Calibration, CalibrationMeta, CalibrationPoint
from proactivellm.policy.endogenous import Confidence, Entropy
from proactivellm.policy.spec import parse_policy

META = CalibrationMeta(source="dev, German-English", num_instances=100)
FREE, BOUNDED = {"top": 0, "min_lag": 1, "max_lag": None}, {"top": 0, "min_lag": 1, "max_lag": 6}


def point(options, threshold, laal, bleu, name="entropy", quantile=None):
    return CalibrationPoint(
        policy=name,
        options=options,
        threshold=threshold,
        quantile=quantile,
        LAAL=laal,
        RCO=laal / 10,
        AL=laal - 1,
        quality=bleu,
    )


def table(*points, heads=None):
    return Calibration(meta=META, points=points, heads=heads)


# Entropy: a higher threshold writes earlier. Given out of order on purpose.
FALLING = [point(FREE, 2.0, 2.0, 30.0), point(FREE, 1.0, 4.0, 36.0), point(FREE, 1.5, 3.0, 34.0)]


@pytest.mark.parametrize(
    ("target", "value", "threshold"),
    [
        ("laal", 2.0, 2.0),  # ends of the range
        ("laal", 4.0, 1.0),
        ("laal", 2.5, 1.75),  # halfway between (2, 2.0) and (3, 1.5)
        ("laal", 3.4, 1.3),  # 0.4 of the way from (3, 1.5) to (4, 1.0)
        ("al", 1.5, 1.75),
        ("rco", 0.34, 1.3),
    ],
)
def test_interpolation(target, value, threshold):
    found, options = table(*FALLING).resolve("entropy", {}, target, value)
    assert found == pytest.approx(threshold)
    assert options == FREE


def test_interpolation_where_the_target_rises_with_the_threshold():
    options = {"min_lag": 1, "max_lag": None}
    points = [
        point(options, 0.3, 2.0, 30, "confidence"),
        point(options, 0.5, 3.0, 35, "confidence"),
    ]
    assert table(*points).resolve("confidence", {}, "laal", 2.25)[0] == pytest.approx(0.35)


def test_the_threshold_of_learned_is_interpolated_by_its_log_odds():
    options = {"lag_weight": 0.5, "min_lag": 1, "max_lag": None}
    points = [point(options, 0.5, 2.0, 30, "learned"), point(options, 0.9, 4.0, 35, "learned")]
    resolve = table(*points).resolve  # odds of 1 and 9: 3 lies halfway
    assert resolve("learned", {}, "laal", 3.0)[0] == 0.75
    assert resolve("learned", {}, "laal", 4.0)[0] == 0.9


def test_noise_is_pooled():
    # By falling threshold the LAALs are 2, 3.5, 3.1, 5: the middle two pool to 3.3 at 1.25.
    points = [
        point(FREE, 2.0, 2.0, 30),
        point(FREE, 1.5, 3.5, 33),
        point(FREE, 1.0, 3.1, 34),
        point(FREE, 0.5, 5.0, 36),
    ]
    resolve = table(*points).resolve
    assert resolve("entropy", {}, "laal", 3.3)[0] == pytest.approx(1.25)
    assert resolve("entropy", {}, "laal", 2.65)[0] == pytest.approx(1.625)  # halfway 2.0 - 1.25
    assert resolve("entropy", {}, "laal", 4.15)[0] == pytest.approx(0.875)  # halfway 1.25 - 0.5


def test_pooling_reaches_back():
    # By falling threshold: 1, 4, 5, 0, 6. 5 and 0 pool to 2.5, below 4: all three pool to 3 at 3.0.
    laals = [1.0, 4.0, 5.0, 0.0, 6.0]
    points = [point(FREE, 5.0 - i, laal, 30) for i, laal in enumerate(laals)]
    assert table(*points).resolve("entropy", {}, "laal", 3.0)[0] == pytest.approx(3.0)
    assert table(*points).resolve("entropy", {}, "laal", 2.0)[0] == pytest.approx(4.0)


def test_level_neighbours_are_pooled():
    points = [point(FREE, t, laal, 30) for t, laal in [(3.0, 2.0), (2.0, 2.0), (1.0, 4.0)]]
    assert table(*points).resolve("entropy", {}, "laal", 2.0)[0] == pytest.approx(2.5)


def test_threshold_is_rounded_to_six_digits():
    points = [point(FREE, 1.0, 4.0, 36), point(FREE, 2.0, 1.0, 30)]
    assert table(*points).resolve("entropy", {}, "laal", 2.0)[0] == 1.66667


BEST = [
    *FALLING,  # BLEU at LAAL 2.5: 32, at 3.5: 35
    point(BOUNDED, 2.5, 2.0, 33.0),
    point(BOUNDED, 0.5, 5.0, 34.5),  # BLEU at LAAL 2.5: 33.25, at 3.5: 33.75
]


def test_best_options_win_at_the_target():
    threshold, options = table(*BEST).resolve("entropy", {}, "laal", 2.5)
    assert (threshold, options) == (pytest.approx(2.5 - 2 * 0.5 / 3, abs=1e-5), BOUNDED)
    threshold, options = table(*BEST).resolve("entropy", {}, "laal", 3.5)
    assert (threshold, options) == (pytest.approx(1.25), FREE)


def bounded(max_lag, *measured, min_lag=1):
    """A curve: (threshold, LAAL, BLEU) of points with these bounds."""
    options = {"top": 0, "min_lag": min_lag, "max_lag": max_lag}
    return [point(options, *each) for each in measured]


def resolved(points, target="laal", value=3.0):
    """Bounds of the policy chosen, and its threshold."""
    threshold, options = table(*points).resolve("entropy", {}, target, value)
    return options["min_lag"], options["max_lag"], threshold


def test_among_equally_good_curves_the_tightest_bounds_win():
    free = bounded(None, (2.0, 2.0, 34.0), (1.0, 4.0, 36.0))  # 35 at LAAL 3, the best
    six = bounded(6, (2.0, 2.0, 33.4), (1.0, 4.0, 35.4))  # 34.4
    late = bounded(6, (2.0, 2.0, 33.2), (1.0, 4.0, 35.2), min_lag=2)  # 34.2
    four = bounded(4, (2.0, 2.0, 33.0), (1.0, 4.0, 34.8))  # 33.9, more than 1 below the best
    assert resolved(free + six + four) == (1, 6, 1.5)
    assert resolved(free + six + four + late) == (2, 6, 1.5)
    assert resolved(four + free) == (1, None, 1.5)
    same = bounded(6, (2.5, 2.0, 33.6), (1.5, 4.0, 35.6))
    for point in same:
        point.options["top"] = 20
    assert resolved(same + six) == resolved(six + same) == (1, 6, 2.0)  # the better of two alike


def test_a_degenerate_point_is_never_chosen():
    free = bounded(None, (2.0, 2.0, 34.0), (1.0, 4.0, 36.0))
    four = bounded(4, (2.0, 2.0, 30.0), (1.0, 4.0, 32.0))
    flagged = [p.model_copy(update={"degenerate": True}) for p in free]
    assert resolved(flagged + four) == (1, 4, 1.5)
    with pytest.raises(
        ValueError, match=r"such options \(2 degenerate point\(s\) left out\); meas"
    ):
        resolved(flagged)
    with pytest.raises(
        ValueError, match=r"laal 4 to 4 \(1 degenerate point\(s\) left out\); choose"
    ):
        resolved([flagged[0], free[1]])


def test_a_better_point_a_bit_below_the_target_is_taken():
    four = bounded(4, (2.0, 2.0, 30.0), (1.0, 2.8, 35.0))  # ends below 3
    free = bounded(None, (2.0, 2.0, 30.0), (1.0, 4.0, 33.0))  # 31.5 at 3
    assert resolved(free + four) == (1, 4, 1.0)
    assert resolved(free + four, value=3.2)[1] is None  # too far below
    assert resolved(free + four, "rco", 0.3) == (1, 4, 1.0)
    level = bounded(4, (2.0, 2.0, 30.0), (1.0, 2.8, 32.4))  # not better by more than 1
    assert resolved(free + level)[1] is None
    falling = bounded(None, (3.0, 2.0, 30.0), (2.0, 2.9, 35.0), (1.0, 3.1, 32.0))
    assert resolved(falling) == (1, None, 2.0)
    with pytest.raises(ValueError, match="laal 2 to 2.8;"):  # what is out of range stays so
        resolved(four)


def test_targets_in_dal():
    points = bounded(4, (2.0, 2.0, 30.0), (1.0, 4.0, 35.0))
    with_dal = [p.model_copy(update={"DAL": p.LAAL + 1}) for p in points]
    assert resolved(with_dal, "dal", 4.0) == (1, 4, 1.5)
    assert parse_policy("entropy:dal=4", table(*with_dal)) == Entropy(threshold=1.5, max_lag=4)
    with pytest.raises(ValueError, match="has no dal of entropy .*measure it with `proactivellm c"):
        resolved(points, "dal", 4.0)  # of a table that was made without it


def test_only_options_that_reach_the_target_compete():
    assert table(*BEST).resolve("entropy", {}, "laal", 4.5)[1] == BOUNDED


def test_given_options_restrict():
    assert table(*BEST).resolve("entropy", {"max_lag": 6}, "laal", 3.5)[1] == BOUNDED
    assert table(*BEST).resolve("entropy", {"max_lag": None}, "laal", 2.5)[1] == FREE
    assert table(*BEST).resolve("entropy", {"min_lag": 1}, "laal", 2.5)[1] == BOUNDED


def test_quantile_uses_only_points_that_have_one():
    points = [
        point(FREE, 1.0, 4.0, 36, quantile=0.5),
        point(FREE, 2.0, 2.0, 30, quantile=0.9),
        point(FREE, 1.9, 2.1, 31),
    ]
    assert table(*points).resolve("entropy", {}, "quantile", 0.7)[0] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("name", "options", "target", "value", "message"),
    [
        (
            *("entropy", {}, "laal", 6.0),
            "entropy:laal=6 is outside the calibrated range, laal 2 to 5; choose a value inside, "
            "or measure more with `proactivellm calibrate --policy entropy`",
        ),
        ("entropy", {"max_lag": None}, "laal", 4.5, "outside the calibrated range, laal 2 to 4;"),
        (
            *("entropy", {"max_lag": 9}, "laal", 3.0),
            "entropy:laal=3,max_lag=9 is not in the calibration table",
        ),
        ("attention", {}, "laal", 3.0, "measure it with `proactivellm calibrate --policy attent"),
        ("entropy", {}, "quantile", 0.9, "has no quantile of entropy"),
        (
            "entropy",
            {},
            "bleu",
            30.0,
            "unknown target 'bleu'; use one of laal, rco, al, dal, quantile",
        ),
    ],
)
def test_unreachable(name, options, target, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        table(*BEST).resolve(name, options, target, value)


def test_range_with_a_gap():
    points = [*FALLING, point(BOUNDED, 2.0, 6.0, 30), point(BOUNDED, 1.0, 8.0, 31)]
    with pytest.raises(ValueError, match="laal 2 to 4 and 6 to 8;"):
        table(*points).resolve("entropy", {}, "laal", 5.0)


def test_parse_policy_resolves():
    calibration = table(*BEST)
    policy = parse_policy("entropy:laal=3.5", calibration)
    assert policy == Entropy(threshold=1.25)
    assert policy.spec == "entropy:threshold=1.25,min_lag=1"
    assert parse_policy(policy.spec) == policy
    bounded = parse_policy("entropy:laal=3.5,max_lag=6", calibration)
    assert bounded == Entropy(threshold=1.5, max_lag=6)
    assert parse_policy("entropy:rco=0.25,max_lag=none", calibration) == Entropy(threshold=1.75)


def test_parse_policy_resolves_heads():
    measured = Attention(threshold=0.4, heads=((1, 0), (2, 3)))
    everywhere = Attention(threshold=0.4)
    scores = {"LAAL": 3.0, "RCO": 0.7, "AL": 2.5, "DAL": 3.5, "BLEU": 35.0, "chrF": 60.0}
    worse = scores | {"BLEU": 30.0}
    points = (
        CalibrationPoint.measured(everywhere, worse),
        CalibrationPoint.measured(measured, scores),
    )
    calibration = table(*points, heads=[[1, 0], [2, 3]])
    assert parse_policy("attention:0.4,heads=calibrated", calibration) == measured
    assert parse_policy("attention:laal=3,heads=calibrated", calibration) == measured
    assert parse_policy("attention:laal=3", calibration) == measured
    assert parse_policy("attention:laal=3,heads=all", calibration) == everywhere
    with pytest.raises(ValueError, match="has no attention heads"):
        parse_policy("attention:0.4,heads=calibrated", table(*points))


def test_option_the_policy_does_not_have():
    calibration = table(point({"frontire": 1}, 1.0, 3.0, 30, "attention"))
    with pytest.raises(ValueError, match="'frontire'; did you mean 'frontier'"):
        parse_policy("attention:laal=3", calibration)


def test_measured_point():
    scores = {"LAAL": 3, "RCO": 0.7, "AL": 2.5, "DAL": 3.5, "BLEU": 35}
    made = CalibrationPoint.measured(Confidence(threshold=0.5, max_lag=6), scores, quantile=0.9)
    assert made.options == {"min_lag": 1, "max_lag": 6, "stride": 1.0, "silence": "wait"}
    assert (made.policy, made.threshold, made.quantile, made.LAAL) == ("confidence", 0.5, 0.9, 3.0)
    with pytest.raises(ValueError, match="lack LAAL, DAL, BLEU"):
        CalibrationPoint.measured(Confidence(threshold=0.5), {"RCO": 0.7, "AL": 2})


@pytest.mark.parametrize(
    ("change", "degenerate"),
    [
        ({}, False),
        ({"degenerate": True}, True),
        ({"degenerate": None}, False),  # nothing was hidden
        ({"num_empty": 10}, False),
        ({"num_empty": 50}, True),
        ({"degenerate": True, "F1": 50.0}, False),  # a short answer hides nothing
        ({"num_empty": 50, "F1": 50.0}, True),
    ],
)
def test_degenerate_points_are_flagged(change, degenerate):
    scores = {"LAAL": 3, "RCO": 0.7, "AL": 2.5, "DAL": 3.5, "BLEU": 35}
    scores |= {"num_instances": 100, "num_empty": 0, "degenerate": False}
    made = CalibrationPoint.measured(Confidence(threshold=0.5), scores | change)
    assert (made.degenerate, made.DAL) == (degenerate, 3.5)


def test_quality_is_highest_where_it_is_best():
    scores = {"LAAL": 812.5, "RCO": 0.7, "AL": 790.25, "DAL": 900.0}
    policy = Confidence(threshold=0.5)
    for metrics, quality in [
        ({"WER": 12.5, "CER": 4.0}, 87.5),
        ({"WER": 130.0, "CER": 90.0}, -30.0),
        ({"F1": 61.0, "EM": 50.0}, 61.0),
    ]:
        assert CalibrationPoint.measured(policy, scores | metrics).quality == quality


def spoken(threshold, max_lag, laal, wer):
    """A point of a policy that transcribes; latencies in ms."""
    policy = Entropy(threshold=threshold, max_lag=max_lag, stride=2)
    scores = {"LAAL": laal, "RCO": laal / 4000, "AL": laal - 55.5, "DAL": laal, "WER": wer}
    return CalibrationPoint.measured(policy, scores, quantile=0.5)


SPOKEN = table(
    spoken(2.0, None, 612.4, 31.0),
    spoken(1.0, None, 1431.8, 20.0),  # at 800 ms: WER 28.5, at 1200 ms: 23.1
    spoken(1.5, 6, 700.6, 26.0),
    spoken(0.5, 6, 1234.6, 25.0),  # 25.8 and 25.1
)


def test_targets_of_speech_are_in_ms():
    early = parse_policy("entropy:laal=800", SPOKEN)
    share = (800 - 700.6) / (1234.6 - 700.6)
    assert early == Entropy(threshold=float(f"{1.5 - share:.6g}"), max_lag=6, stride=2)
    assert early.spec.endswith(",min_lag=1,max_lag=6,stride=2")
    assert parse_policy("entropy:laal=1200", SPOKEN).max_lag is None
    assert parse_policy("entropy:al=800.5,max_lag=6", SPOKEN).max_lag == 6
    assert parse_policy("entropy:rco=0.2", SPOKEN).max_lag == 6
    assert parse_policy("entropy:laal=800,stride=2", SPOKEN) == early


def test_ranges_of_speech_are_in_whole_ms():
    with pytest.raises(ValueError, match="entropy:laal=3 is outside .* laal 612 to 1432;"):
        parse_policy("entropy:laal=3", SPOKEN)
    with pytest.raises(ValueError, match="entropy:laal=12000,max_lag=6 is .* laal 701 to 1235;"):
        parse_policy("entropy:laal=12000,max_lag=6", SPOKEN)
    with pytest.raises(ValueError, match=r"rco=800 is outside .* rco 0.153 to 0.358;"):
        parse_policy("entropy:rco=800", SPOKEN)


def test_save_and_load(tmp_path):
    calibration = table(*BEST, heads=[[0, 1]])
    calibration.save(tmp_path)
    assert Calibration.load(tmp_path) == calibration
    assert Calibration.load(tmp_path / "calibration.json") == calibration
    raw = json.loads((tmp_path / "calibration.json").read_text())
    assert raw["version"] == 2
    assert raw["heads"] == [[0, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version: Input should be 2"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"points": [{"policy": "entropy"}]}, "points.0.options: Field required"),
        ({"heads": [[0, "1"]]}, "heads.0.1: Input should be a valid integer"),
        ({"heads": [[0, -1]]}, "heads.0.1: Input should be greater than or equal to 0"),
        ({"meta": {"source": "dev", "num_instances": 0}}, "meta.num_instances: Input should be"),
    ],
)
def test_malformed_file(tmp_path, change, message):
    calibration = json.loads(table(*FALLING).model_dump_json())
    (tmp_path / "calibration.json").write_text(json.dumps(calibration | change))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Calibration.load(tmp_path)
    assert "calibration.json is no calibration table of version 2" in str(caught.value)


def test_a_file_of_something_else(tmp_path):
    for content in (b"\xff", b"", b"[" * 5000):
        (tmp_path / "calibration.json").write_bytes(content)
        with pytest.raises(
            ValueError, match="is no calibration table of version 2: .*Invalid JSON"
        ):
            Calibration.load(tmp_path)


def test_strict_numbers(tmp_path):
    raw = json.loads(table(*FALLING).model_dump_json())
    raw["points"][1]["LAAL"] = "3"
    (tmp_path / "calibration.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="points.1.LAAL: Input should be a valid number"):
        Calibration.load(tmp_path)


def test_no_json(tmp_path):
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(ValueError, match="file: Invalid JSON"):
        Calibration.load(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no calibration table at .*`proactivellm calibrate`"):
        Calibration.load(tmp_path)


def test_not_a_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        point(FREE, float("nan"), 3.0, 30.0)
