"""Tables fit where they are printed, and name what they leave out."""

import pytest

from proactivellm.report.console import plain_table, print_scores, print_tables
from proactivellm.report.score_table import score_table

ROW = {
    "policy": "entropy:threshold=1.64082,top=20,min_lag=1,max_lag=4",
    "request": "entropy:laal=3",
    **{"BLEU": 20.0, "BLEU_ci": 1.5, "chrF": 40.0, "chrF_ci": 1.2, "AL": 2.0, "LAAL": 2.2},
    **{"LAAL_ci": 0.2, "YAAL": 2.1, "DAL": 2.3, "AP": 0.7, "RCO": 0.8, "AIL": 1.0, "NE": 0.0},
    **{"first_token_ms_p50": 400.0, "final_token_ms_p50": 90.0, "LAAL_CA_ms": 800.0},
    **{"RTF": 0.1, "forwards": 12.5, "num_bootstrap": 1000},
}


def test_what_finds_no_room_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores([ROW], "x has all")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    note = " ".join(lines).partition("no room for: ")[2]
    left_out, shown = note.partition(" (")[0].split(", "), "".join(lines[:3])
    for heading in [str(column.header) for column in score_table([ROW]).columns]:
        assert (f" {heading} " in shown) != (heading in left_out)
    assert note.endswith("(x has all)")
    assert "entropy:laal=3" in lines[3]  # as it was asked for


def test_a_narrow_table_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([plain_table("Title\x1b", ("", "a"), [["x\x1b[2J", "1"]], "note")])
    text = capsys.readouterr().out
    assert "no room" not in text and "note" in text and "\x1b" not in text
