"""LaTeX tables: no LaTeX is needed to test them, a strict reader of the little that they use is."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latex_reader import check
from synthetic_results import example, families, result, write_sweep

from analysis.errors import AnalysisError
from analysis.latex import booktabs, escape, number
from analysis.latex_export import export
from analysis.load import read


@given(cells=st.lists(st.text(max_size=15), min_size=4, max_size=4), caption=st.text(max_size=30))
def test_any_text_gives_a_table_that_compiles(cells: list[str], caption: str) -> None:
    heads = [("", cells[0]), (cells[1], "dB")]
    body = [[cells[2], "+1.50"], [cells[3], "-"]]
    rows = check(booktabs(heads, body, caption=caption, label="tab:x", notes=[caption]))
    assert [row[1] for row in rows[-2:]] == ["$+1.50$", "--"]


def test_texts_are_escaped() -> None:
    assert escape("a_b 50 % & #1 {x} $ ~ ^ \\ <") == (
        r"a\_b 50 \% \& \#1 \{x\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{}"
    )
    assert escape("a\nb -- c") == "a b -{}- c"


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        ("12.50", "12.50"),
        ("-0.5", "$-0.5$"),
        ("+3", "$+3$"),
        ("-", "--"),
        ("a_b", r"a\_b"),
        ("1e-05", "1e-05"),
    ],
)
def test_numbers_get_a_true_minus(cell: str, printed: str) -> None:
    assert number(cell) == printed


def test_the_frontier_as_a_table(tmp_path: Path) -> None:
    trees = families((32, 64))
    trees[0]["label"] = "100 % of_conv & #1"
    source = read(write_sweep(tmp_path / "s", trees))
    (path,) = export(source, tmp_path / "out")
    text = path.read_text()
    rows = check(text)
    assert [row[0] for row in rows[:2]] == ["", "architecture"]
    assert rows[2][0] == r"100 \% of\_conv \& \#1"
    decimals = {len(row[3].partition(".")[2]) for row in rows[2:]}
    assert decimals == {4}, "numbers of a column have as many decimals, so that flush right aligns them"
    caption = next(line for line in text.splitlines() if "caption" in line)
    assert r"Budget quick, 0.025 \% of the study's training steps; evaluated on kodak (24 images)" in caption
    (every,) = export(source, tmp_path / "all", every=True)
    all_rows = check(every.read_text())
    assert len(all_rows) == 2 + 14
    assert {row[0].removesuffix("*") for row in all_rows if row[0].endswith("*")} == {
        row[0] for row in rows[2:]
    }


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", [result(status="failed")]))
    with pytest.raises(AnalysisError, match="no trial of s can be compared"):
        export(source, tmp_path)


@pytest.mark.full
def test_pdflatex_takes_it(tmp_path: Path) -> None:
    (path,) = export(read(write_sweep(tmp_path / "s", example())), tmp_path)
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{NAME}\end{document}"
    (tmp_path / "page.tex").write_text(page.replace("NAME", path.name))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
