"""The study's own numbers, as it printed them."""

from analysis.published import SPEEDS, table1

ROWS = {row["model"]: row for row in table1().to_dict("records")}


def test_table_1_is_the_papers() -> None:
    assert list(ROWS) == list("ABCDEFG")
    assert ROWS["A"]["kflops_per_px_decode"] == 1076.4
    assert (ROWS["G"]["params_m"], ROWS["G"]["rate_saving_vs_bpg_pct"]) == (12.8, 4.68)
    assert set(SPEEDS) < set(ROWS["A"])


def test_a_v100_ranks_two_models_otherwise_on_larger_images() -> None:
    kodak, clic = "decode_mpps_kodak_v100", "decode_mpps_clic_v100"
    assert ROWS["G"][kodak] > ROWS["F"][kodak]
    assert ROWS["G"][clic] < ROWS["F"][clic]


def test_a_caller_cannot_change_the_table() -> None:
    mine = table1()
    mine.loc[0, "params_m"] = 0.0
    assert table1().loc[0, "params_m"] == 38.0
