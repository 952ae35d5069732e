import math
from pathlib import Path

import pytest

from analysis import schema
from analysis.errors import AnalysisError
from analysis.runtimes import TABLE_VERSION as RUNTIME_TABLE_VERSION
from analysis.schema_text import markdown
from analysis.side_tables import IMAGES, RUNTIMES


def test_names_and_metric_keys_are_unique() -> None:
    names = [c.name for c in (*schema.COLUMNS, *schema.FRONTIER_COLUMNS)]
    keys = [c.metric for c in schema.COLUMNS if c.metric]
    assert len(set(names)) == len(names)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "key",
    [
        "eval/bpp", "eval/bpp_estimated", "eval/psnr_db", "eval/mse", "eval/ms_ssim", "eval/rd_loss",
        "eval/rate_saving_vs_bpg_pct", "eval/rate_saving_vs_vtm_pct", "cost/kmac_per_px_dec",
        "cost/kflop_per_px_dec", "cost/params_m", "time/dec_net_ms", "time/dec_entropy_ms",
    ],
)  # fmt: skip
def test_the_metric_keys_that_users_chart_exist(key: str) -> None:
    assert key in {c.metric for c in schema.COLUMNS}


def test_every_stored_column_has_a_path_and_every_quality_number_a_rule() -> None:
    for col in schema.COLUMNS:
        assert bool(col.path) == (col.origin != "derived"), col.name
        assert col.description.endswith("."), col.name
        if (col.metric or "").startswith("eval/"):
            assert any(w in col.description for w in ("mean", "Mean", "summed", "100")), col.name


def test_values_take_the_columns_type_and_unit() -> None:
    tree = {
        "complexity": {"params": {"total": 12_800_000}},
        "spec": {"seed": 3, "model": {"depth": {"channels": [64, 64, 96]}}},
        "training": {"rollbacks": [{"step": 5}, {"step": 9}]},
        "error": None,
    }
    assert schema.read_value(tree, schema.column("params_m")) == 12.8
    assert schema.read_value(tree, schema.column("seed")) == 3
    assert schema.read_value(tree, schema.column("channels")) == "64-64-96"
    assert schema.read_value(tree, schema.column("rollbacks")) == 2
    assert schema.read_value(tree, schema.column("error_class")) is None
    assert schema.read_value(tree, schema.column("bpp")) is None


def test_metrics_hold_finite_numbers_only() -> None:
    row = {"bpp": 0.5, "psnr_db": math.inf, "mse": None, "ms_ssim": math.nan, "label": "x"}
    assert schema.metrics(row) == {"eval/bpp": 0.5}


def test_an_unknown_column_lists_the_known_ones() -> None:
    with pytest.raises(AnalysisError, match=r"no column 'flops'; columns: spec_id, .*kmac_per_px_dec"):
        schema.column("flops")


def test_the_page_of_the_schema_is_what_the_command_prints() -> None:
    page = Path(__file__).parents[2] / "docs" / "schema.md"
    assert page.read_text() == markdown(), "python -m analysis schema > docs/schema.md writes it anew"


def test_the_page_names_every_column_and_the_current_versions() -> None:
    text = markdown()
    for col in (*schema.COLUMNS, *schema.FRONTIER_COLUMNS, *IMAGES, *RUNTIMES):
        assert f"| `{col.name}` | {col.unit} | {col.kind} |" in text, col.name
    newest: dict[str, int] = {}
    for file, version, _ in schema.HISTORY:
        newest[file] = max(version, newest.get(file, 0))
    assert newest == {
        "trials": schema.TABLE_VERSION,
        "images": schema.IMAGE_TABLE_VERSION,
        "runtimes": RUNTIME_TABLE_VERSION,
        "result.json": schema.RESULT_VERSION,
        "timing JSON": schema.TIMING_VERSION,
    }
