"""The presets have the published sizes. `pytest -s` prints the tables that docs/models.md shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.published_sizes import ALTERNATIVES, REFERENCES, STUDY, Published, Row, row, table

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
GROUPS = {"study": STUDY, "alternatives": ALTERNATIVES, "references": REFERENCES}


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {one.name: row(one) for group in GROUPS.values() for one in group}


def names(group: tuple[Published, ...]) -> list[str]:
    return [one.name for one in group]


@pytest.mark.parametrize("group", GROUPS)
def test_docs_show_the_tables(group: str, rows: dict[str, Row]) -> None:
    text = table([rows[name] for name in names(GROUPS[group])])
    print(f"\n{text}")
    assert text in DOCS.read_text(), "run python benchmarks/published_sizes.py and put its tables there"


@pytest.mark.parametrize("name", names(STUDY))
def test_decoding_of_the_studys_models_costs_what_is_published(name: str, rows: dict[str, Row]) -> None:
    assert abs(rows[name].cost_error) < 0.005


@pytest.mark.parametrize("name", names(STUDY))
def test_parameters_of_the_studys_models_are_those_published(name: str, rows: dict[str, Row]) -> None:
    # A and B can only be read without g_a (docs/models.md); 38.0 and 31.6 M to within 1 %.
    assert abs(rows[name].params_error) < (0.01 if name in ("rdc_a", "rdc_b") else 0.005)


@pytest.mark.parametrize("name", names(REFERENCES))
def test_reference_models(name: str, rows: dict[str, Row]) -> None:
    assert abs(rows[name].cost_error) < 0.01
    assert abs(rows[name].params_error) < 0.005


# Sums over layers, in millions: those of the parameters that the reading counts.
ALTERNATIVE_SIZES = {
    "rdc_a_full_count": (37.89, 1082.80),
    "rdc_a_all_support": (38.08, 1073.89),
    "rdc_b_param_matched": (31.50, 560.07),
    "rdc_d_m320": (22.53, 341.89),
    "rdc_e_depth2": (17.27, 248.93),
    "rdc_g_hyper_as_f": (12.73, 117.15),
}


@pytest.mark.parametrize("name", names(ALTERNATIVES))
def test_alternatives_have_the_sizes_that_they_are_kept_for(name: str, rows: dict[str, Row]) -> None:
    params_m, kflop_per_px = ALTERNATIVE_SIZES[name]
    assert rows[name].params_m == pytest.approx(params_m, abs=0.006)
    assert rows[name].kflop_per_px == pytest.approx(kflop_per_px, abs=0.006)


# Parts of the study's models, in kFLOP/px: h_s, context, g_s.
PARTS = {
    "rdc_a": (2.87, 187.92, 885.26),
    "rdc_b": (2.87, 149.40, 478.54),
    "rdc_c": (2.87, 149.40, 240.02),
    "rdc_d": (2.55, 103.14, 236.59),
    "rdc_e": (29.60, 0.0, 221.38),
    "rdc_f": (29.60, 0.0, 170.13),
    "rdc_g": (29.60, 0.0, 87.55),
}


@pytest.mark.parametrize("name", PARTS)
def test_every_part_costs_what_its_layers_sum_up_to(name: str, rows: dict[str, Row]) -> None:
    found = [rows[name].parts.get(part, 0.0) for part in ("h_s", "context", "g_s")]
    assert found == pytest.approx(PARTS[name], abs=0.006)
