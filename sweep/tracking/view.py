"""The prepared chart and table view of a sweep in MLflow's web interface, and the address that opens it.

The view is MLflow's own "saved view": an experiment tag whose value names columns, order and charts. The
format is internal to MLflow's interface (read from 3.17), therefore tests/full opens it in a real browser.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

TAG_PREFIX = "mlflow.sharedViewState."

RD_LOSS, BPP, PSNR_DB = "eval/rd_loss", "eval/bpp", "eval/psnr_db"
SAVING_PCT = "eval/rate_saving_vs_bpg_pct"
KFLOP, PARAMS_M, DECODE_MS = "cost/kflop_per_px_dec", "cost/params_m", "time/dec_total_ms"

# Shown unless nobody has a value: rate savings exist on Kodak alone, times where timing was asked for.
OPTIONAL_METRICS = (SAVING_PCT, DECODE_MS)

# Table columns with their widths in pixels, left to right.
COLUMNS = (
    ("attributes.`Run Name`", 230),
    ("tags.`frontier`", 80),
    ("params.`lmbda`", 80),
    (f"metrics.`{RD_LOSS}`", 105),
    (f"metrics.`{KFLOP}`", 165),
    (f"metrics.`{BPP}`", 80),
    (f"metrics.`{PSNR_DB}`", 95),
    (f"metrics.`{DECODE_MS}`", 130),
    (f"metrics.`{PARAMS_M}`", 110),
    (f"metrics.`{SAVING_PCT}`", 190),
    # Between these two stand the parameters in which trials differ.
    ("tags.`status`", 100),
)
DEFAULT_PARAMS = ("entropy_model", "depth.channels")
MOST_PARAMS = 4
# Sections that MLflow fills by itself with one chart per metric: there when wanted, folded at first.
FOLDED_SECTIONS = ("eval", "cost", "time", "budget", "train", "val", "sweep")


def tag_value(
    name: str,
    view_key: str,
    now_s: float,
    *,
    absent: Collection[str] = (),
    several_lmbdas: bool = False,
    varied: Sequence[str] = (),
) -> str:
    """The experiment tag's value: a named view, listed in the interface's menu, of the runs so tagged.

    absent: those of OPTIONAL_METRICS that no run has. several_lmbdas: rd_loss does not compare across them,
    so the plane of rate and quality comes first. varied: parameters in which the trials differ.
    """
    shown = list(varied[:MOST_PARAMS]) or list(DEFAULT_PARAMS)
    columns = [*COLUMNS[:-1], *((f"params.`{param}`", 150) for param in shown), COLUMNS[-1]]
    hidden = {f"metrics.`{metric}`" for metric in absent} | (set() if several_lmbdas else {"params.`lmbda`"})
    planes = [(KFLOP, RD_LOSS), (BPP, PSNR_DB), (DECODE_MS, RD_LOSS), (KFLOP, SAVING_PCT)]
    if several_lmbdas:
        planes.sort(key=lambda plane: plane[1] == RD_LOSS)
    state = _state(
        view_key,
        columns=[column for column in columns if column[0] not in hidden],
        params=shown,
        charts=[_scatter(x, y) for x, y in planes if x not in absent and y not in absent],
    )
    packed = zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)
    now_ms = round(1000 * now_s)
    text = "deflate;" + base64.b64encode(packed).decode()
    return json.dumps({"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": text})


def view_address(server: str, experiment_id: str, view_key: str, mode: str = "CHART") -> str:
    """mode: CHART or TABLE. Without workflowType the interface opens its view for language-model traces."""
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
        f"&compareRunsMode={mode}&viewStateShareKey={quote(view_key)}"
    )


def run_address(server: str, experiment_id: str, run_id: str, tab: str = "") -> str:
    """tab: empty for the overview, /artifacts/NAME for a file."""
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{tab}?workflowType=machine_learning"
    )


def _state(
    view_key: str,
    *,
    columns: Sequence[tuple[str, int]],
    charts: Sequence[dict[str, Any]],
    params: Sequence[str],
) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.sweep = '{view_key}'",
        "orderByKey": f"metrics.`{RD_LOSS}`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [column for column, _ in columns],
        "columnOrder": [column for column, _ in columns],
        "columnWidths": dict(columns),
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
            _section("frontier", "Quality against cost (rd_loss: lower is better)", columns=2),
            _section("parallel", "From architecture to cost and quality, one line per trial", columns=1),
            _section("curves", "Training curves", columns=3),
            *(_section(f"all-{name}", name, columns=3, unfolded=False) for name in FOLDED_SECTIONS),
        ],
        "compareRunCharts": [
            *charts,
            _parallel(params),
            *(_line(metric) for metric in ("train/rd_loss", "train/bpp", "train/psnr_db")),
        ],
    }


def _section(uuid: str, name: str, *, columns: int, unfolded: bool = True) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": unfolded,
        "columns": columns,
        "cardHeight": 360 if columns == 3 else 420,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }


def _card(kind: str, uuid: str, section: str) -> dict[str, Any]:
    """The interface takes a chart's title from its axes."""
    return {
        "uuid": uuid,
        "type": kind,
        "metricSectionId": section,
        "runsCountToCompare": 1000,
        "deleted": False,
        "isGenerated": False,
    }


def _scatter(x_metric: str, y_metric: str) -> dict[str, Any]:
    return {
        **_card("SCATTER", f"{y_metric} over {x_metric}", "frontier"),
        "xaxis": {"key": x_metric, "type": "METRIC"},
        "yaxis": {"key": y_metric, "type": "METRIC"},
    }


def _parallel(params: Sequence[str]) -> dict[str, Any]:
    return {
        **_card("PARALLEL", "parallel axes", "parallel"),
        "selectedParams": list(params),
        "selectedMetrics": [PARAMS_M, KFLOP, BPP, PSNR_DB, RD_LOSS],
        "showAllRuns": False,
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        **_card("LINE", f"{metric} by step", "curves"),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
