"""The prepared chart and table view of a sweep in MLflow's web interface, and the address that opens it.

The view is MLflow's own "saved view": an experiment tag whose value names columns, order and charts. The format
is internal to MLflow's interface (read from 3.17), therefore tests/full opens it in a real browser.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any
from urllib.parse import quote

TAG_PREFIX = "mlflow.sharedViewState."

RD_LOSS, BPP, PSNR_DB = "eval/rd_loss", "eval/bpp", "eval/psnr_db"
KFLOP, PARAMS_M, DECODE_MS = "cost/kflop_per_px_dec", "cost/params_m", "time/dec_total_ms"

# Table columns with their widths in pixels, left to right after the run's name.
COLUMNS = (
    ("tags.`frontier`", 80),
    (f"metrics.`{RD_LOSS}`", 105),
    (f"metrics.`{KFLOP}`", 165),
    (f"metrics.`{BPP}`", 80),
    (f"metrics.`{PSNR_DB}`", 95),
    (f"metrics.`{DECODE_MS}`", 130),
    (f"metrics.`{PARAMS_M}`", 110),
    ("metrics.`eval/rate_saving_vs_bpg_pct`", 190),
    ("params.`entropy_model`", 160),
    ("params.`depth.channels`", 115),
    ("tags.`status`", 100),
)
# Sections that MLflow fills by itself with one chart per metric: there when wanted, folded at first.
FOLDED_SECTIONS = ("eval", "cost", "time", "budget", "train", "val", "sweep")


def tag_value(name: str, sweep_tag: str, created_ms: int) -> str:
    """The experiment tag's value: a named view (listed in the interface's menu) of the runs tagged `sweep_tag`."""
    state = json.dumps(_state(sweep_tag), separators=(",", ":"))
    packed = "deflate;" + base64.b64encode(zlib.compress(state.encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": created_ms, "updatedAt": created_ms, "state": packed})


def view_address(server: str, experiment_id: str, view_key: str, mode: str = "CHART") -> str:
    """mode: CHART or TABLE. Without workflowType the interface would open its view for language-model traces."""
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
        f"&compareRunsMode={mode}&viewStateShareKey={quote(view_key)}"
    )


def run_address(server: str, experiment_id: str, run_id: str, tab: str = "") -> str:
    """tab: empty for the overview, /artifacts/NAME for a file."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{tab}?workflowType=machine_learning"


def _state(sweep_tag: str) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.sweep = '{sweep_tag}'",
        "orderByKey": f"metrics.`{RD_LOSS}`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [column for column, _ in COLUMNS],
        "columnOrder": [column for column, _ in COLUMNS],
        "columnWidths": dict(COLUMNS),
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "chartsSearchFilter": "",
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        # Otherwise the interface sorts the sections by name.
        "isAccordionReordered": True,
        "compareRunSections": [
            _section("frontier", "Frontier: quality against cost") | {"columns": 2, "cardHeight": 420},
            _section("parallel", "From architecture to cost and quality") | {"columns": 1, "cardHeight": 420},
            _section("curves", "Training curves"),
            *(_section(f"all-{name}", name, unfolded=False) for name in FOLDED_SECTIONS),
        ],
        "compareRunCharts": [
            _scatter(
                "rd-loss-kflop", "rd_loss against decode kFLOPs/px (low and left is better)", KFLOP, RD_LOSS
            ),
            _scatter("psnr-bpp", "PSNR (dB) against rate (bit/px)", BPP, PSNR_DB),
            _scatter("rd-loss-ms", "rd_loss against decode time (ms)", DECODE_MS, RD_LOSS),
            _parallel(),
            _line("train-rd-loss", "Training rd_loss by step", "train/rd_loss"),
            _line("train-bpp", "Training bpp by step", "train/bpp"),
            _line("train-psnr", "Training PSNR (dB) by step", "train/psnr_db"),
        ],
    }


def _section(uuid: str, name: str, *, unfolded: bool = True) -> dict[str, Any]:
    return {
        "uuid": uuid, "name": name, "display": unfolded, "isReordered": False, "deleted": False, "isGenerated": False,
    }  # fmt: skip


def _card(kind: str, uuid: str, title: str, section: str) -> dict[str, Any]:
    return {
        "uuid": uuid, "type": kind, "displayName": title, "metricSectionId": section,
        "runsCountToCompare": 1000, "deleted": False, "isGenerated": False,
    }  # fmt: skip


def _scatter(uuid: str, title: str, x_metric: str, y_metric: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x_metric, "type": "METRIC"}, "yaxis": {"key": y_metric, "type": "METRIC"}}
    return {**_card("SCATTER", uuid, title, "frontier"), **axes}


def _parallel() -> dict[str, Any]:
    return {
        **_card("PARALLEL", "parallel-axes", "", "parallel"),
        "selectedParams": ["entropy_model", "depth.channels"],
        "selectedMetrics": [PARAMS_M, KFLOP, BPP, PSNR_DB, RD_LOSS],
        "showAllRuns": False,
    }


def _line(uuid: str, title: str, metric: str) -> dict[str, Any]:
    return {
        **_card("LINE", uuid, title, "curves"),
        "metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step", "selectedXAxisMetricKey": "",
        "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0, "range": {}, "yAxisKey": "metric",
        "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip
