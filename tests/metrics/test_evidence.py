"""When answers come by what the source had told: values worked out by hand."""

from dataclasses import replace

import pytest
from tests.metrics.instances import make_log

from proactivellm.metrics.evidence import answer_delays_s, word_delays_s
from proactivellm.metrics.score import score
from proactivellm.report.score_table import scores_markdown

BASE = replace(make_log(1)[0], source_type="video", source_length=10000, task="qa")


def answer(text, delays, evidence, reference, group="", index=0):
    return replace(
        BASE,
        index=index,
        group=group,
        prediction=text,
        prediction_length=len(delays),
        reference=reference,
        delays=delays,
        elapsed=delays,
        token_delays=delays,
        evidence_ms=evidence,
    )


# Of a source of 10 s, in units of a second.
LOG = [
    answer("red", [3000], [2500], "red", "first", 0),  # right, half a second after
    answer("red", [1000], [2500], "red", "first", 1),  # right, and guessed
    answer("blue", [5000], [4000], "red", "first", 2),  # wrong, after it
    # The second word of two, which were told at 1 and at 4 s, comes two seconds late.
    answer("red square", [1000, 6000], [1000, 4000], "red square", "tell", 3),
    answer("", [], [4000], "no", "tell", 4),
]


def test_by_hand():
    found = score(LOG)
    assert found["EM"] == 60.0
    assert found["evidence_delay_s"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["evidence_delay_s_p50"] == pytest.approx(0.75)
    assert found["end_delay_s"] == pytest.approx((7.5 + 7.5) / 2)
    assert found["premature"] == pytest.approx(1 / 5)
    # Before 2.5, 2.5, 4, 1 and 4 s: all of it, but for the guess at 1 s.
    assert found["silence"] == pytest.approx((1 + 1 / 2.5 + 1 + 1 + 1) / 5)


def test_words_are_late_that_come_when_the_source_has_ended():
    late = answer("red square", [9000, 10000], [1000, 4000], "red square", index=1)
    waited = answer("red", [10000], [1000], "red", index=2)
    assert score([LOG[0], late, waited])["late_words"] == pytest.approx(2 / 3)
    assert "| late words |" in scores_markdown([score([LOG[0], late])])


def test_groups_are_told_apart():
    found = score(LOG)["by_group"]
    assert {name: each["num_instances"] for name, each in found.items()} == {"first": 3, "tell": 2}
    assert found["first"]["EM"] == pytest.approx(200 / 3) and found["tell"]["EM"] == 50.0
    assert found["first"]["evidence_delay_s"] == 0.5 and found["tell"]["evidence_delay_s"] == 1.0
    assert found["first"]["premature"] == pytest.approx(1 / 3)
    table = scores_markdown([score(LOG)])
    assert "| wait-k:2 | first | 3 | " in table and "| premature |" in table
    assert "by_group" not in score(LOG[:3])


def test_one_that_waits_for_the_end_has_its_delay():
    at_end = [replace(each, delays=[10000.0] * len(each.delays)) for each in LOG]
    found = score(at_end)
    assert found["evidence_delay_s"] == found["end_delay_s"] == pytest.approx(22.5 / 3)
    assert found["premature"] == 0 and found["silence"] == 1


def test_words_beyond_the_reference_wait_for_its_last():
    wordy = answer("red square and", [3000, 3000, 3500], [1000, 4000], "red square")
    assert word_delays_s(wordy) == [2.0, -1.0, -0.5]
    assert answer_delays_s([wordy], [True]) == [None]
    rounded = answer("red", [2499.5], [2500], "red")
    assert answer_delays_s([rounded], [True]) == [pytest.approx(-0.0005)]


def test_what_tells_of_no_evidence_has_no_such_scores():
    assert "premature" not in score(make_log(3)) and "by_group" not in score(make_log(3))
    untold = replace(LOG[0], evidence_ms=None)
    assert word_delays_s(untold) is None
    characters = answer("红 方", [3000, 3000], [1000, 2000], "红 方")
    assert word_delays_s(replace(characters, latency_unit="char")) is None
    assert score([LOG[0], replace(untold, index=9)])["num_undefined"]["premature"] == 1
