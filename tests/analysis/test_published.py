"""The study's own numbers, as it printed them."""

from analysis.published import SPEEDS, table1


def test_table_1_is_the_papers() -> None:
    table = table1().set_index("model")
    assert list(table.index) == list("ABCDEFG")
    assert table.loc["A", "kflops_per_px_decode"] == 1076.4
    assert table.loc["G", ["params_m", "rate_saving_vs_bpg_pct"]].tolist() == [12.8, 4.68]
    assert set(SPEEDS) < set(table.columns)


def test_a_v100_ranks_two_models_otherwise_on_larger_images() -> None:
    table = table1().set_index("model")
    assert table.loc["G", "decode_mpps_kodak_v100"] > table.loc["F", "decode_mpps_kodak_v100"]
    assert table.loc["G", "decode_mpps_clic_v100"] < table.loc["F", "decode_mpps_clic_v100"]


def test_a_caller_cannot_change_the_table() -> None:
    mine = table1()
    mine.loc[0, "params_m"] = 0.0
    assert table1().loc[0, "params_m"] == 38.0
