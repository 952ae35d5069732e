"""CSV and Parquet tables: what is written is read back to the last bit, whatever the texts are."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_results import example, families, result, timings_of, write_sweep

from analysis.errors import AnalysisError
from analysis.frontier import write_report
from analysis.load import Source, read
from analysis.rows import frame_of
from analysis.runtimes import RUNTIME_COLUMNS
from analysis.schema import COLUMNS, TABLE_VERSION, column
from analysis.side_tables import IMAGES, RUNTIMES
from analysis.tables import Format, described, export

FORMATS: tuple[Format, ...] = ("csv", "parquet")


def assert_same(found: Source, wanted: Source) -> None:
    for name in ("frame", "images", "runtimes"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(wanted, name), check_exact=True)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Source:
    trees = [*families((32, 64)), result(40, status="failed"), result(dataset="clic", images=5)]
    return read(write_sweep(tmp_path_factory.mktemp("sweep") / "s", trees, timings=timings_of(trees)))


@pytest.mark.parametrize("form", FORMATS)
def test_a_sweep_comes_back_with_its_images_and_runtimes(tmp_path: Path, sweep: Source, form: Format) -> None:
    assert len(sweep.images) > 300
    assert len(sweep.runtimes) > 60
    files = export(sweep, tmp_path / "out", form)
    assert [path.name for path in files] == [f"{name}.{form}" for name in ("trials", "images", "runtimes")]
    assert_same(read(tmp_path / "out"), sweep)
    assert_same(read(tmp_path / "out" / f"trials.{form}"), sweep)


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_without_images_and_runtimes_comes_back_too(tmp_path: Path, form: Format) -> None:
    (tmp_path / "mine.csv").write_text('label,bpp,note\n"a, ""b""",0.5,NA\n12e45,,1.0\n')
    source = read(tmp_path / "mine.csv")
    export(source, tmp_path / "out", form)
    back = read(tmp_path / "out")
    assert_same(back, source)
    assert back.frame["arch_id"].tolist() == ['a, "b"', "12e45"]
    assert back.frame["note"].tolist() == ["NA", "1.0"]
    assert len(back.images) == len(back.runtimes) == 0


# No file holds half of a surrogate pair, and no CSV NUL; results are cleaned of both when they are read.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    [
        "12e45",
        "NA",
        "nan",
        "1.0",
        "-",
        'a "b", c',
        "a\nb",
        "a\rb",
        "a\r\nb",
        " a ",
        "#",
        "=1+1",
        "größer 像",
        "True",
    ]
)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.1 + 0.2, 5e-324, 1e308, -0.0])
NOT_NEGATIVE = st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False) | st.none()
FREE = ("psnr_db", "ms_ssim", "rate_gap_pct", "rd_loss_slope_per_1k_steps")
WHOLE = st.integers(0, 2**53) | st.none()
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            **{name: TEXTS for name in ("label", "arch_id", "budget", "error_message", "eval_source")},
            **{name: NUMBERS for name in FREE},
            **{name: NOT_NEGATIVE for name in ("lmbda", "bpp", "rd_loss", "time_dec_total_ms", "params_m")},
            **{name: WHOLE for name in ("seed", "steps", "eval_images")},
            "time_alone": st.booleans() | st.none(),
        }
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None)
@given(rows=ROWS, form=st.sampled_from(FORMATS))
def test_any_table_comes_back_as_it_was(
    rows: list[dict[str, Any]], form: Format, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    written = frame_of(rows)
    export(Source("x", folder, written), folder / "a", form)
    first = read(folder / "a")
    for name in rows[0]:
        if name not in ("label", "arch_id"):  # each stands in for the other where that is empty
            pd.testing.assert_series_equal(first.frame[name], written[name], check_exact=True)
    export(first, folder / "b", form)
    assert_same(read(folder / "b"), first)


def test_parquet_says_what_its_columns_are(tmp_path: Path, sweep: Source) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in export(sweep, tmp_path, "parquet"):
        content = parquet.read_schema(path)
        assert content.metadata[b"rdc_table"].decode() == path.stem
        assert content.metadata[b"table_version"] == (b"2" if path.stem == "trials" else b"1")
        for known in described(path.stem):
            facts = content.field(known.name).metadata
            assert facts[b"unit"].decode() == known.unit
            assert facts[b"description"].decode() == known.description
            assert facts[b"better"].decode() == known.better
    assert TABLE_VERSION == 2
    kinds = {str(content.field(name).type) for name in ("height_px", "threads")}
    assert kinds == {"int64"}


def test_every_column_of_the_side_tables_is_described(sweep: Source) -> None:
    assert [c.name for c in IMAGES] == list(sweep.images.columns)
    assert [c.name for c in RUNTIMES] == list(RUNTIME_COLUMNS) == list(sweep.runtimes.columns)
    for shared in ("bpp", "psnr_db", "mse", "ms_ssim", "rd_loss"):
        of_image = next(c for c in IMAGES if c.name == shared)
        assert (of_image.unit, of_image.better) == (column(shared).unit, column(shared).better)


def test_every_table_says_its_version(tmp_path: Path, sweep: Source) -> None:
    for path in export(sweep, tmp_path, "csv"):
        versions = pd.read_csv(path)["table_version"]
        assert set(versions) == {2 if path.stem == "trials" else 1}
    assert COLUMNS[-1].name == "table_version"


def test_a_side_table_that_is_none_is_an_error_in_one_line(tmp_path: Path, sweep: Source) -> None:
    export(sweep, tmp_path, "csv")
    images = tmp_path / "images.csv"
    lines = images.read_text().splitlines()
    for text, message in (
        (
            "\n".join([lines[0], lines[1].replace("768", "wide")]),
            r"images\.csv, row 1: width_px='wide\.0' is not a number",
        ),
        ("a,b\n1,2\n", r"images\.csv lacks spec_id, image, .* write it with `python -m analysis export`"),
        (
            lines[0] + "\n" + lines[1].replace("1,", "9,", 1),
            r"images\.csv has version 9, this release reads up to 1",
        ),
    ):
        images.write_text(text)
        with pytest.raises(AnalysisError, match=message):
            read(tmp_path)


def test_a_message_with_carriage_returns_does_not_break_the_tables_of_the_frontier(tmp_path: Path) -> None:
    failed = result(40, status="failed")
    failed["error"]["message"] = "10 %\r20 %\rkilled\0 by \udcff"
    folder = write_sweep(tmp_path / "s", [*example(), failed])
    write_report(folder, print_table=False, draw=False)
    assert "10 %\r20 %\rkilled? by ?" in set(read(folder / "trials.csv").frame["error_message"])
