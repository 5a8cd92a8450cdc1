"""What thinking cost, from logs: tokens by stage, sentences with a thought, times."""

from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

from tests.metrics.instances import make_log

from proactivellm.metrics.score import score
from proactivellm.metrics.thinking import measure_thinking
from proactivellm.output.log import Instance, LoggedThought, read_log, write_instance


def thought(stage: int, tokens: int, units_read: int, began_ms: float = 400.0) -> LoggedThought:
    return LoggedThought(stage=stage, tokens=tokens, units_read=units_read, began_ms=began_ms)


def logged() -> list[Instance]:
    """Of three units: one thinks as it reads, one when it has read, one not at all."""
    one, two, three = (
        replace(each, delays=[3] * len(each.delays), token_delays=[3, 3], source_ms=900.0)
        for each in map(partial(replace, source_length=3, task="reasoning"), make_log(3))
    )
    early = [thought(0, 4, 1), thought(0, 1, 2), thought(0, 6, 3)]
    early += [thought(1, 2, 3), thought(2, 3, 3), thought(3, 1, 3)]
    late = [thought(0, 1, 3, 950.0), thought(0, 8, 3)]
    return [
        replace(one, thoughts=early, waited_tokens=5, needed=[True, False, True]),
        replace(two, thoughts=late, waited_tokens=15, needed=[True, False, False]),
        three,
    ]


def test_costs_are_of_stages_and_of_units() -> None:
    log = [replace(each, first_token_ms=1000.0) for each in logged()]
    found = {name: value.corpus() for name, value in measure_thinking(log[:2]).items()}
    assert found == {
        **{"thought_tokens": 10.0, "integration_tokens": 1.0, "reflection_tokens": 2.0},
        **{"answer_tokens": 2.0, "late_tokens": (6 + 6 + 2 + 9 + 2) / 2},
        **{"think_rate": 3 / 6, "think_rate_needed": 2 / 3, "think_rate_filler": 1 / 3},
        **{"waited_tokens": 10.0, "first_thought_s": 0.675, "answer_delay_s": 0.1},
    }
    assert measure_thinking(log)["thought_tokens"].corpus() == 10.0, "means of what thinks"
    assert measure_thinking(log[2:]) == {}
    unlabelled = measure_thinking([replace(log[0], needed=None)])
    assert "think_rate_needed" not in unlabelled and unlabelled["think_rate"].corpus() == 2 / 3


def test_they_are_scores_of_a_log_that_was_written_and_read(tmp_path: Path) -> None:
    file = StringIO()
    for each in logged():
        write_instance(file, each)
    (tmp_path / "log").write_text(file.getvalue())
    scores = score(read_log(tmp_path / "log"))
    assert scores["late_tokens"] == 12.5 and scores["num_undefined"]["late_tokens"] == 1
    assert '"needed"' in file.getvalue().splitlines()[1]
    assert '"needed"' not in file.getvalue().splitlines()[2]
