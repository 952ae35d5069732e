"""The study's figures, judged by what they say: texts, markers and values, not pixels."""

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic_results import families, grid, result, timing, timings_of, write_sweep

from analysis.__main__ import main
from analysis.anchors import load_anchor
from analysis.bdrate import rate_saving_pct
from analysis.comparable import Choice
from analysis.correlation import correlate
from analysis.curves import trial_curves
from analysis.errors import AnalysisError
from analysis.families import family_styles
from analysis.figures.plane import MAX_NAMED, SAMPLE_NAMED, plane
from analysis.figures.published import published_figure
from analysis.figures.ranks import draw_ranks, orders, pairs
from analysis.figures.rd import rate_psnr
from analysis.figures.savings import DEFAULT_REFERENCES, saving_over_rate
from analysis.figures.sheet import FORMATS, check_formats, save
from analysis.figures.study import Material, check_out, draw_study, material
from analysis.figures.times import MAX_OUTLIERS, Setting, far_from_fit, fit, time_over_flops
from analysis.load import read
from analysis.published import SPEEDS, table1
from analysis.text import LABEL_WIDTH, shorten

LMBDAS = (0.0035, 0.0067, 0.013, 0.025)
REFERENCES = [load_anchor(name) for name in DEFAULT_REFERENCES]
PLANE = ("kflop_per_px_dec", "rd_loss")


def sweep(
    folder: Path, results: list[dict[str, Any]], timings: list[dict[str, Any]] | None = None
) -> Material:
    return material([read(write_sweep(folder, results, timings=timings))], [], Choice())


def svg_texts(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


def markers(path: Path, group_id: str) -> int:
    """How many markers the SVG group of that id holds; 0 without such a group."""
    name = "{http://www.w3.org/2000/svg}"
    groups = [
        group
        for group in ElementTree.parse(path).getroot().iter(f"{name}g")
        if group.get("id", "").startswith(group_id)
    ]
    return sum(len(list(group.iter(f"{name}use"))) for group in groups)


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every visible text with its place in pixels."""
    figure.canvas.draw()
    found = []
    # Ticks out of view keep their labels, undrawn, anywhere.
    ticks = {
        label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text in ticks:
            continue
        box = Text.get_window_extent(text)  # of an annotation without its leader
        if text.get_visible() and text.get_text().strip() and box.width > 0:
            found.append((text.get_text(), box))
    return found


def assert_readable(figure: Figure) -> None:
    """No text lies on another or leaves the figure."""
    placed = boxes(figure)
    for text, box in placed:
        inside = figure.bbox.padded(0.5)
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1, f"{text!r} is cut"  # noqa: PT018
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1, f"{text!r} is cut"  # noqa: PT018
    for (one, box), (other, other_box) in itertools.combinations(placed, 2):
        # Boxes include the room for descenders; half a pixel is none.
        assert not box.padded(-1).overlaps(other_box.padded(-1)), f"{one!r} lies on {other!r}"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Seven families at three widths, on two devices, on the second for two image sizes; two as curves."""
    results = families(widths=(32, 64, 128))
    timings = [tree for tree in timings_of(results) if tree["threads"] == 1]
    timings = [tree for tree in timings if tree["device_slug"][0] == "g" or tree["image_px"] == [512, 768]]
    curves = [
        result(width, "charm", transform="elic", lmbda=lmbda) for lmbda in LMBDAS for width in (64, 128)
    ]
    return sweep(tmp_path_factory.mktemp("full"), [*results, *curves], timings)


@pytest.fixture(scope="module")
def drawn(full: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_study(full, REFERENCES, folder, ("svg",))
    return folder


@pytest.fixture(scope="module")
def by_family(full: Material) -> dict[str, tuple[str, str]]:
    return family_styles(full.trials["family"])


def test_a_full_sweep_gives_every_figure(full: Material, drawn: Path) -> None:
    names = {path.stem for path in drawn.iterdir()}
    single = {"fig1_rate_saving_over_rate", "fig2_rd_loss_over_flops", "fig2_rate_psnr", "fig_published"}
    times = {
        f"fig4_time_over_flops__{slug}-bf16" for slug in ("cpu-synthetic-1-thread", "gpu-synthetic-1-thread")
    }
    assert single | times <= names
    ranks = [name for name in names if name.startswith("fig4_ranks__")]
    assert len(ranks) == 5
    assert "fig4_ranks__cpu-synthetic-1-thread-bf16-768x512__vs__gpu-synthetic-1-thread-bf16-768x512" in ranks
    assert len(names) == len(single | times) + len(ranks)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "fig1_rate_saving_over_rate",
            [
                "rate of the coded file  [bit/px]",
                "rate saving against BPG 4:4:4 at equal PSNR  [%]",
                "grey, named at the right: published, told apart by dashes",
                "VTM-9.1 intra (CompressAI)",
                "ELIC (2022), as published",
                "BPG 4:4:4 (tensorflow/compression) = 0",
            ],
        ),
        (
            "fig2_rd_loss_over_flops",
            [
                "decode complexity  [kFLOP/px], lower is better",
                "rd_loss = bpp + lmbda 255² MSE  [bit/px]",
                "frontier: no other is better in both",
                "hollow: off the frontier, another is better",
            ],
        ),
        (
            "fig2_rate_psnr",
            [
                "rate of the coded file  [bit/px]",
                "PSNR, mean over images  [dB]",
                "filled: on the frontier of the other figure",
            ],
        ),
        (
            "fig4_time_over_flops__gpu-synthetic-1-thread-bf16",
            [
                "decode complexity  [kFLOP/px]",
                "decode time of the networks  [ms]",
                "Kodak size: 768 x 512 px",
                "CLIC size: 2048 x 1365 px",
            ],
        ),
        (
            "fig_published",
            [
                "decode complexity  [kFLOP/px], lower is better",
                "decode speed of the networks  [megapixel/s]",
                "circled letter: published, 2,000,000 steps",
                "published speed: V100, CLIC images",
            ],
        ),
    ],
)
def test_axes_have_units_and_legends_say_what_is_what(drawn: Path, name: str, wanted: Sequence[str]) -> None:
    texts = svg_texts(drawn / f"{name}.svg")
    assert set(wanted) <= set(texts)


def test_every_figure_says_what_it_rests_on(full: Material, drawn: Path, tmp_path: Path) -> None:
    for path in drawn.glob("fig[12]*.svg"):
        small_print = " ".join(svg_texts(path))
        assert "Images: kodak, 24 images." in small_print
        assert "budget quick, 500 steps = 0.025 % of the study's 2,000,000 (undertrained" in small_print
    for path in drawn.glob("fig4*.svg"):
        small_print = " ".join(svg_texts(path))
        assert (
            "the decoding networks alone, without entropy coding; one image, median of repeats" in small_print
        )
        assert "bf16" in small_print
    warm = trial_curves(full.trials.assign(warm_start="w"))[:2]
    figure = saving_over_rate(warm, REFERENCES, family_styles(full.trials["family"]))
    count = sum(len(curve.rows) for curve in warm)
    wanted = f"{count} of {count} points warm-started from other weights."
    assert any(wanted in " ".join(text.split()) for text, _ in boxes(figure))
    trained = full.architectures.assign(percent_of_paper_steps=100.0, steps=2_000_000)
    save(plane(trained, *PLANE, family_styles(trained["family"])), tmp_path, "trained", ("svg",))
    small_print = " ".join(svg_texts(tmp_path / "trained.svg"))
    assert "2,000,000 steps = 100 % of the study's" in small_print
    assert "undertrained" not in small_print


def test_markers_are_the_architectures_and_filled_ones_the_frontier(full: Material, drawn: Path) -> None:
    points = full.architectures[list(PLANE)].to_numpy(dtype=float)
    best = [p for p in points if not any((q <= p).all() and (q < p).any() for q in points)]
    for name in ("fig2_rd_loss_over_flops", "fig2_rate_psnr"):
        path = drawn / f"{name}.svg"
        assert markers(path, "filled ") == len(best) == full.architectures["on_frontier"].sum()
        assert markers(path, "filled ") + markers(path, "hollow ") == len(points) == 21
        texts = svg_texts(path)
        numbered = [text.partition("  ")[2] for text in texts if text[:1].isdigit() and "  " in text]
        for label in full.architectures.loc[full.architectures["on_frontier"], "label"]:
            assert label in texts or label in numbered


def test_savings_drawn_are_the_analysis_savings(full: Material, by_family: dict[str, Any]) -> None:
    curves = trial_curves(full.trials)
    (axes,) = saving_over_rate(curves, REFERENCES, by_family).axes
    zero = load_anchor("bpg").curve
    lines = {str(line.get_label()): line for line in axes.lines}
    named = [curve for curve in curves if len(curve.rows) > 1]
    assert len(named) == 2
    for curve in named:
        expected = [
            rate_saving_pct(zero, bpp=bpp, psnr_db=psnr_db)
            for bpp, psnr_db in zip(curve.rows["bpp"], curve.rows["psnr_db"], strict=True)
        ]
        np.testing.assert_allclose(
            np.asarray(lines[curve.label].get_ydata(), dtype=float), expected, rtol=1e-12
        )
        np.testing.assert_allclose(
            np.asarray(lines[curve.label].get_xdata(), dtype=float), curve.rows["bpp"], rtol=1e-12
        )
    vtm = load_anchor("vtm").curve
    reached = [
        (bpp, rate_saving_pct(zero, bpp=bpp, psnr_db=psnr_db))
        for bpp, psnr_db in zip(vtm.bpp, vtm.psnr_db, strict=True)
        if zero.psnr_db[0] <= psnr_db <= zero.psnr_db[-1]
    ]
    assert any(
        np.shape(line.get_xydata()) == np.shape(reached) and np.allclose(line.get_xydata(), reached)
        for line in axes.lines
    ), "VTM is drawn where BPG reaches it, and nowhere else"


def test_points_beyond_bpg_are_counted_and_not_drawn(tmp_path: Path, by_family: dict[str, Any]) -> None:
    below = result(32, penalty=9)
    assert below["evaluation"]["psnr_db"] < load_anchor("bpg").curve.psnr_db[0]
    given = sweep(tmp_path / "s", [below, result(64)])
    figure = saving_over_rate(trial_curves(given.trials), REFERENCES, family_styles(given.trials["family"]))
    assert any("Not shown: 1 point outside BPG's range of PSNR." in text for text, _ in boxes(figure))
    given = sweep(tmp_path / "t", [below])
    report = draw_study(given, REFERENCES, tmp_path / "o")
    low_db, high_db = (load_anchor("bpg").curve.psnr_db[end] for end in (0, -1))
    assert (
        f"fig1_rate_saving_over_rate: no trial's PSNR lies in the range of {load_anchor('bpg').title}, "
        f"{low_db:.1f} to {high_db:.1f} dB" in report.left_out
    )


def test_published_numbers_are_the_tables_and_stand_apart(
    full: Material, drawn: Path, by_family: dict[str, Any]
) -> None:
    saving, speed = published_figure(full.architectures, by_family).axes
    table = table1()
    (theirs,) = [line for line in saving.lines if line.get_gid() == "published"]
    np.testing.assert_array_equal(theirs.get_ydata(), table["rate_saving_vs_bpg_pct"])
    assert (theirs.get_color(), theirs.get_markerfacecolor()) == ("0.45", "white")
    assert {text.get_text() for text in saving.texts} == set("ABCDEFG") == {t.get_text() for t in speed.texts}
    ordered = table.sort_values("kflops_per_px_decode")
    for column in SPEEDS:
        (line,) = [line for line in speed.lines if line.get_gid() == column]
        np.testing.assert_array_equal(line.get_ydata(), ordered[column])
    ours = np.concatenate(
        [line.get_ydata() for line in saving.lines if line.get_marker() not in ("None", "o")]
    )
    assert set(ours) < set(full.architectures["rate_saving_vs_bpg_pct"])
    assert any("A, B, C, D: ELIC / CHARM / SwinT" in text for text in svg_texts(drawn / "fig_published.svg"))


def test_families_look_alike_in_all_figures(full: Material, by_family: dict[str, Any]) -> None:
    some = full.architectures[full.architectures["family"].isin(sorted(by_family)[-2:])]
    (axes,) = plane(some, *PLANE, by_family).axes
    figure = axes.figure
    assert isinstance(figure, Figure)
    (legend,) = [legend for legend in figure.legends if legend.get_title().get_text().startswith("family")]
    handles = {
        text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    for family in some["family"].unique():
        assert (handles[family].get_color(), handles[family].get_marker()) == by_family[family]
    assert set(handles) & set(by_family) == set(some["family"]), "the legend has no family that is not shown"


@pytest.mark.parametrize("count", [1, 14, 500])
def test_texts_never_lie_on_each_other(tmp_path: Path, count: int) -> None:
    results = families(widths=range(16, 16 + 4 * -(-count // 7), 4))[:count]
    if count == 14:
        for tree in results:
            tree["label"] += " with a name that is longer than anything that has room in a figure"
    given = sweep(tmp_path / "s", results, timings_of(results)[: 5 * min(count, 14)])
    by_family = family_styles(given.trials["family"])
    curves = trial_curves(given.trials)
    for figure in (
        plane(given.architectures, *PLANE, by_family),
        rate_psnr(given.architectures, by_family),
        saving_over_rate(curves, REFERENCES, by_family),
        time_over_flops(given.timed[given.timed["setting"] == given.timed["setting"].iloc[0]], by_family),
        published_figure(given.architectures, by_family),
        *(draw_ranks(pair, by_family) for pair in pairs(orders(given.timed))[:1]),
    ):
        assert_readable(figure)


def test_names_without_room_become_numbers_with_a_list(tmp_path: Path) -> None:
    results = [result(width) for width in range(100, 130)]
    for rank, tree in enumerate(results):
        tree["evaluation"]["rd_loss"] = 2 - 0.01 * rank
        tree["label"] += " with a name that is longer than anything that has room in a figure"
    given = sweep(tmp_path / "s", results, [])
    figure = plane(given.architectures, *PLANE, family_styles(given.trials["family"]))
    best = given.architectures[given.architectures["on_frontier"]].sort_values("kflop_per_px_dec")
    texts = [text for text, _ in boxes(figure)]
    assert len(best) == 30
    for number, label in enumerate(best["label"], start=1):
        assert f"{number}  {shorten(label, LABEL_WIDTH)}" in texts
    assert {"1", "2", str(len(best))} <= set(texts)
    assert_readable(figure)


def test_a_long_frontier_is_named_from_end_to_end(tmp_path: Path) -> None:
    results = [result(width) for width in range(20, 20 + 4 * (MAX_NAMED + 4), 4)]
    for rank, tree in enumerate(results):
        tree["evaluation"]["rd_loss"] = 2 - 0.01 * rank
    given = sweep(tmp_path / "s", results)
    figure = plane(given.architectures, *PLANE, family_styles(given.trials["family"]))
    labels = [tree["label"] for tree in results]
    named = [labels.index(text) for text, _ in boxes(figure) if text in labels]
    assert len(named) == SAMPLE_NAMED
    assert min(named) == 0
    assert max(named) == len(results) - 1
    assert any(f"Named: {SAMPLE_NAMED} of the {len(results)}" in text for text, _ in boxes(figure))


def test_a_point_that_is_far_off_is_counted_and_not_shown(tmp_path: Path) -> None:
    given = sweep(tmp_path / "s", [*grid(), result(40, penalty=12)])
    save(plane(given.architectures, *PLANE, family_styles(given.trials["family"])), tmp_path, "p", ("svg",))
    assert markers(tmp_path / "p.svg", "filled ") + markers(tmp_path / "p.svg", "hollow ") == 12
    assert any("Not shown: 1 far worse, out of view." in text for text in svg_texts(tmp_path / "p.svg"))


def test_the_same_input_gives_the_same_bytes(full: Material, tmp_path: Path) -> None:
    given = [tmp_path / "one", tmp_path / "two"]
    some = full.architectures[:4]
    for folder in given:
        save(plane(some, *PLANE, family_styles(some["family"])), folder, "plane", FORMATS)
    for path in given[0].iterdir():
        assert path.read_bytes() == (given[1] / path.name).read_bytes(), path.name
    assert {path.suffix for path in given[0].iterdir()} == {".png", ".svg", ".pdf"}
    assert (
        b"/FontType 42" in (given[0] / "plane.pdf").read_bytes()
        or b"/Type0" in (given[0] / "plane.pdf").read_bytes()
    )


def test_what_cannot_be_drawn_is_explained_and_its_older_file_removed(tmp_path: Path) -> None:
    out = tmp_path / "o"
    out.mkdir()
    old = [
        "fig1_rate_saving_over_rate.png",
        "fig1_rate_saving_over_rate.svg",
        "fig4_time_over_flops__gone.pdf",
        "fig4_ranks__a__vs__b.png",
    ]
    for name in (*old, "mine.png", "fig4_ranks__notes.txt"):
        (out / name).write_text("older")
    given = sweep(tmp_path / "s", grid(dataset="clic", images=41), [])
    report = draw_study(given, REFERENCES, out)
    assert not any((out / name).exists() for name in old)
    assert (out / "mine.png").exists()
    assert (out / "fig4_ranks__notes.txt").exists()
    assert {path.name for path in report.files} == {
        "fig2_rd_loss_over_flops.png",
        "fig2_rate_psnr.png",
        "fig_published.png",
    }
    untimed = "nothing was timed; `python -m rdc time` measures, --runtimes TABLE.csv takes its table"
    assert report.left_out == (
        "fig1_rate_saving_over_rate: anchor is on kodak, evaluation set is clic",
        f"fig4_time_over_flops: {untimed}",
        f"fig4_ranks: {untimed}",
    )
    failed = sweep(tmp_path / "f", [result(32, status="failed")], [])
    report = draw_study(failed, REFERENCES, out)
    assert [path.name for path in report.files] == ["fig_published.png"]
    assert "fig2_rate_psnr: no trial can be compared (1 with status failed)" in report.left_out
    assert not (out / "fig2_rate_psnr.png").exists()


def test_sources_are_put_together_and_each_trial_counts_once(tmp_path: Path) -> None:
    one = read(write_sweep(tmp_path / "a", grid()[:8]))
    two = read(write_sweep(tmp_path / "b", grid()[4:]))
    both = material([one, two], [], Choice())
    assert len(both.trials) == len(both.architectures) == 12
    assert len(both.timed) == 12
    with pytest.raises(AnalysisError, match=r"2 sources: say where their figures go with --out FOLDER"):
        check_out([one, two], None)
    assert check_out([one], None) == tmp_path / "a"


def test_a_tables_time_columns_are_its_timings(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", grid()))
    source.frame.to_csv(tmp_path / "t.csv", index=False)
    from_table = material([read(tmp_path / "t.csv")], [], Choice()).timed
    from_sweep = material([source], [], Choice()).timed
    for name in ("arch_id", "setting", "size", "dec_net_ms", "kflop_per_px_dec", "device_slug"):
        assert list(from_table[name]) == list(from_sweep[name]), name


def test_fits_are_power_laws(tmp_path: Path) -> None:
    work = np.array([2.0, 8.0, 3.0, 40.0])
    found = fit(work, 3 * work**0.75)
    assert found.exponent == pytest.approx(0.75)
    assert found.factor == pytest.approx(3)
    assert found.correlation is not None
    assert found.correlation.pearson.value == pytest.approx(1)
    assert found.correlation.kendall.value == pytest.approx(1)
    assert fit(work[:3], work[:3]).correlation is None
    assert fit(work[:2], work[:2]).exponent is None
    assert fit(np.full(5, 2.0), np.arange(1.0, 6.0)).exponent is None, "one cost makes no line"
    flat = fit(work, np.full(4, 2.0))
    assert flat.exponent == pytest.approx(0)
    assert flat.correlation is None
    rows = families(widths=(32, 48, 64, 96, 128))
    given = sweep(tmp_path / "s", rows, [timing(tree) for tree in rows])
    figure = time_over_flops(given.timed, family_styles(given.trials["family"]))
    group = given.timed[given.timed["family"] == "elic/charm/swint"]
    b, _ = np.polyfit(np.log(group["kflop_per_px_dec"].astype(float)), np.log(group["dec_net_ms"]), 1)
    (line,) = [text for text, _ in boxes(figure) if text.startswith("elic/charm/swint")]
    same = correlate(group["kflop_per_px_dec"], group["dec_net_ms"])
    wanted = [f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in (same.pearson, same.kendall)]
    assert " ".join(line.split()) == f"elic/charm/swint 5 {b:.2f} {' '.join(wanted)}"
    assert any("Not timed here: images of CLIC size." in text for text, _ in boxes(figure))


def test_models_far_from_the_fit_are_named_and_few_models_have_no_interval() -> None:
    work = np.array([10.0, 20, 40, 80, 160, 320, 640, 1280, 25])
    factors = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 9])
    names = [f"model {n}" for n in range(8)] + ["slow one"]
    rows = pd.DataFrame({"kflop_per_px_dec": work, "dec_net_ms": 2 * work * factors, "label": names})
    assert far_from_fit(rows)[0][2] == "slow one"
    rows["dec_net_ms"] = 2 * work
    assert far_from_fit(rows) == []
    assert far_from_fit(rows[:2]) == []
    rows["dec_net_ms"] = 2 * work * np.array([9.0, 1, 9, 1, 9, 1, 9, 1, 9])
    assert len(far_from_fit(rows)) == MAX_OUTLIERS
    rows = rows.assign(family=["f/g/h"] * 4 + ["g/g/h"] * 5)
    for name, value in (("setting", Setting("cpu", 1, "fp32")), ("size", (512, 768))):
        rows[name] = pd.Series([value] * 9, dtype=object)
    texts = [
        " ".join(text.split()) for text, _ in boxes(time_over_flops(rows, family_styles(rows["family"])))
    ]
    (few,) = [text for text in texts if text.startswith("f/g/h 4")]
    assert few.count("too few") == 2
    (enough,) = [text for text in texts if text.startswith("g/g/h 5")]
    assert enough.count("[") == 2
    assert any("Named: the models farthest from the line of all models" in text for text in texts)


def test_repeated_timings_count_once_by_their_median(tmp_path: Path) -> None:
    given = sweep(tmp_path / "s", [result(32)])
    rows = pd.concat([read(tmp_path / "s").runtimes] * 3, ignore_index=True)
    rows["dec_net_ms"] = [10.0, 30.0, 11.0]
    again = material([read(tmp_path / "s")], [rows.iloc[1:]], Choice()).timed
    assert len(given.timed) == len(again) == 1
    assert again["dec_net_ms"].iloc[0] == np.median([given.timed["dec_net_ms"].iloc[0], 30.0, 11.0])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path / "s", [*grid(), result(40, status="failed")])
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "fig4_time_over_flops__another-device.svg").write_text("of an earlier command")
    options = ["-o", str(tmp_path / "o"), "--format", "svg", "--anchor", "vtm"]
    assert main(["figures", str(tmp_path / "s"), *options]) == 0
    printed = capsys.readouterr().out
    for path in (tmp_path / "o").iterdir():
        assert path.suffix == ".svg"
        assert path.name in printed
    texts = svg_texts(tmp_path / "o" / "fig1_rate_saving_over_rate.svg")
    assert "VTM-9.1 intra (CompressAI)" in texts
    assert "ELIC (2022), as published" not in texts
    assert main(["figures", str(tmp_path / "s"), "--format", "gif"]) == 2
    assert capsys.readouterr().err == "error: --format 'gif' is not known; known: png, svg, pdf\n"
    assert main(["figures", str(tmp_path / "s"), "--runtimes", str(tmp_path / "no.csv")]) == 2
    assert "no.csv" in capsys.readouterr().err
    assert check_formats("PNG, svg,png") == ("png", "svg")
