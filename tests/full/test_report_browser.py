"""The page of `python -m analysis report` in a real browser, from a file, by clicking.

Needs Chromium (Debian: apt-get install chromium); a missing browser is a failure, not a skip.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from analysis.load import Source, read
from analysis.pareto import frontier_mask
from analysis.report import write_page
from analysis.schema import column

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from synthetic_results import example, families, result, write_sweep
from test_report import EVIL, with_shown

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

# Milliseconds; far beyond what a loaded machine needs.
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Every family at six widths, curves, a second seed, failures, crops, and text of a stranger."""
    made = tmp_path_factory.mktemp("report") / "s"
    several = [tree for tree in families() if tree["label"].startswith("elic")]
    trees = [
        *(with_shown(tree, made / "trials", 20 + n) for n, tree in enumerate(several)),
        *(tree for tree in families() if not tree["label"].startswith("elic")),
        *(tree for tree in example() if tree["spec"]["warm_start"]),
        result(64, seed=1),
        {**result(56), "label": EVIL},
        {**result(40, status="failed"), "error": {"class": "X", "message": EVIL}},
    ]
    for tree in trees:
        folder = made / "trials" / tree["spec_id"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(tree["spec"]))
    return read(write_sweep(made, trees))


@pytest.fixture(scope="module")
def path(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(source, tmp_path_factory.mktemp("page") / "page.html").path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "this test needs Chromium: install it (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture
def page(path: Path, browser: Browser) -> Iterator[Page]:
    with opened_page(path, browser) as opened:
        yield opened


@contextlib.contextmanager
def opened_page(path: Path, browser: Browser) -> Iterator[Page]:
    """The page; at the end, nothing may have been fetched, complained of or run by strangers."""
    troubles: list[str] = []
    opened = browser.new_page(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    opened.on("console", lambda said: troubles.extend([said.text] * (said.type in ("error", "warning"))))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("request", lambda request: note_request(request.url, path, troubles))
    opened.goto(path.as_uri())
    opened.wait_for_selector("body[data-drawn=yes]", timeout=PATIENCE_MS)
    yield opened
    opened.close()
    assert troubles == []


def note_request(address: str, path: Path, troubles: list[str]) -> None:
    if address != path.as_uri() and not address.startswith(("data:", "blob:")):
        troubles.append(f"request {address}")


def frontier_in(page: Page) -> list[str]:
    """arch labels of the list beside the figure, in its order."""
    return page.locator("#best .label").all_text_contents()


def expected(frame: pd.DataFrame, x: str, y: str) -> list[str]:
    """The same by analysis.pareto, of the rows given."""
    rows = frame[frame[[x, y]].notna().all(axis=1)]
    signs = [1.0 if column(name).better == "low" else -1.0 for name in (x, y)]
    best = rows[frontier_mask(rows[[x, y]].to_numpy(dtype=np.float64) * signs)]
    return list(best.sort_values(x, ascending=signs[0] > 0, kind="stable")["label"])


@pytest.fixture(scope="module")
def architectures(source: Source) -> pd.DataFrame:
    from analysis.comparable import average_seeds, comparable, distinct_labels

    chosen = comparable(source.frame, ["rd_loss", "kmac_per_px_dec"])
    return average_seeds(distinct_labels(chosen.rows))


def test_the_first_screen_tells_the_verdict_and_draws_the_frontier(
    page: Page, architectures: pd.DataFrame
) -> None:
    wanted = expected(architectures, "kflop_per_px_dec", "rd_loss")
    verdict = page.locator("#verdict")
    assert f"{len(wanted)} of {len(architectures)} architectures are on the frontier" in verdict.inner_text()
    assert verdict.locator("> *").first.inner_text().startswith("Undertrained: 0.025")
    paper = "e => getComputedStyle(e).backgroundColor"
    assert verdict.locator(".warning").evaluate(paper) != verdict.locator(".answer").evaluate(paper)
    assert frontier_in(page) == wanted
    for selector in ("#verdict", "#plane", "#best", "#families", "#plane-note"):
        box = page.locator(selector).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 800, f"{selector} is not on the first screen"
        assert box["x"] + box["width"] <= 1280
    points = page.locator("#plane .scatterlayer .points path").count()
    assert points == len(architectures) + 1, "and the ring around the chosen one"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_on_arrival_the_best_is_chosen_everywhere(page: Page, architectures: pd.DataFrame) -> None:
    best = architectures.sort_values("rd_loss", kind="stable").iloc[0]
    assert page.locator("#detail h3").inner_text() == best["label"]
    assert page.locator("#best button.chosen .label").all_inner_texts() == [best["label"]]
    assert page.locator("#trials tbody tr.chosen td").first.inner_text() == best["label"]
    ring = page.evaluate(
        "(() => { const d = document.getElementById('plane').data.at(-1); return [d.x[0], d.y[0]] })()"
    )
    assert ring == [best["kflop_per_px_dec"], best["rd_loss"]]
    assert page.locator("#names").inner_text().startswith("A name: transform, widths")


def test_the_controls_are_one_row_and_nothing_in_them_is_cut(page: Page) -> None:
    boxes = [page.locator(id_).bounding_box() for id_ in ("#group", "#y", "#x", "#log-x", "#svg", "#png")]
    middles = [box["y"] + box["height"] / 2 for box in boxes if box is not None]
    assert len(middles) == 6
    assert max(middles) - min(middles) < 8
    widths = """select => {
      const copy = select.cloneNode(true);
      copy.style.maxWidth = copy.style.width = "max-content";
      select.after(copy);
      const wanted = copy.offsetWidth;
      copy.remove();
      return [select.offsetWidth, wanted];
    }"""
    given, wanted = page.locator("#group").evaluate(widths)
    assert given >= wanted


def test_ticks_of_an_axis_have_the_same_decimals_also_after_zooming(page: Page) -> None:
    def decimals(axis: str) -> set[int]:
        texts = page.locator(f"#plane .{axis}tick text").all_text_contents()
        assert len(texts) > 1
        return {len(text.partition(".")[2]) for text in texts}

    for low, high in ((0.0, 3.0), (1.65, 1.71), (1.7, 1.7004), (0.0, 40000.0)):
        page.evaluate("range => Plotly.relayout('plane', {'yaxis.range': range})", [low, high])
        assert len(decimals("y")) == 1, (low, high)
    page.select_option("#x", "psnr_db")
    page.check("#log-x")
    assert len(decimals("x")) == 1


def test_hollow_is_explained_where_something_is_hollow(page: Page) -> None:
    seen = set()
    for at in range(page.locator("#group option").count()):
        page.select_option("#group", str(at))
        hollow = page.evaluate(
            "document.getElementById('plane').data.slice(1, -1)"
            ".some((trace) => trace.marker.symbol.endsWith('-open'))"
        )
        assert ("Hollow" in page.locator("#plane-note").inner_text()) == hollow
        seen.add(hollow)
    assert seen == {True, False}


def test_another_plane_has_its_own_frontier_and_scales(page: Page, architectures: pd.DataFrame) -> None:
    scale = "document.getElementById('plane')._fullLayout.xaxis.type"
    assert page.evaluate(scale) == "log"
    page.uncheck("#log-x")
    assert page.evaluate(scale) == "linear"
    planes = [("params_m", "psnr_db"), ("psnr_db", "bpp"), ("time_dec_total_ms", "rate_saving_vs_bpg_pct")]
    for x, y in planes:
        page.select_option("#y", y)
        page.select_option("#x", x)
        assert frontier_in(page) == expected(architectures, x, y)
        for axis, name in (("x", x), ("y", y)):
            shown = page.locator(f"#plane .{axis}title").text_content() or ""
            assert shown.endswith(f"{'lower' if column(name).better == 'low' else 'higher'} is better")


def test_the_frontier_in_the_browser_is_that_of_analysis_with_equal_points_too(page: Page) -> None:
    """The function itself on random points of few values, so that many are equal in one or both."""
    rng = np.random.default_rng(0)
    sets = [rng.integers(0, 6, (n, 2)).astype(float).tolist() for n in (1, 2, 5, 30, 200)]
    for points in sets:
        for high_x, high_y in ((False, False), (True, False), (False, True), (True, True)):
            found = page.evaluate("([p, x, y]) => rdc.frontierOf(p, x, y)", [points, high_x, high_y])
            signs = [-1.0 if high_x else 1.0, -1.0 if high_y else 1.0]
            mask = frontier_mask(np.array(points) * signs)
            assert sorted(found) == list(np.flatnonzero(mask))


def test_a_family_that_is_switched_off_is_gone_from_figure_and_frontier(
    page: Page, architectures: pd.DataFrame
) -> None:
    family = "elic/charm/swint"
    page.locator("#families label", has_text=family).locator("input").uncheck()
    left = architectures[architectures["family"] != family]
    assert frontier_in(page) == expected(left, "kflop_per_px_dec", "rd_loss")
    assert f"of {len(left)} are on the frontier" in page.locator("#plane-title").inner_text()
    page.locator("#families label", has_text=family).locator("input").check()
    assert frontier_in(page) == expected(architectures, "kflop_per_px_dec", "rd_loss")


def first_cells(page: Page, number: int) -> list[str]:
    return page.locator(f"#trials tbody tr td:nth-child({number})").all_text_contents()


def test_the_table_sorts_searches_and_filters(page: Page, architectures: pd.DataFrame) -> None:
    heads = page.locator("#trials thead th").all_inner_texts()
    at = next(n for n, head in enumerate(heads, start=1) if head.strip().startswith("PSNR"))
    page.locator(f"#trials thead th:nth-child({at}) .dt-column-title").click()
    shown = [float(cell) for cell in first_cells(page, at)]
    best = sorted(architectures["psnr_db"], reverse=True)[: len(shown)]
    assert shown == pytest.approx(best, abs=0.006), "the first click on a heading shows the best first"
    page.fill(".dt-search input", "swint-hyper")
    wanted = architectures[architectures["label"].str.contains("swint-hyper")]
    assert f"of {len(wanted)}" in page.locator(".dt-info").inner_text()
    page.fill(".dt-search input", "")
    page.locator(f"#trials thead th:nth-child({at}) .dtcc-button").click()
    page.locator(".dtcc-dropdown select").first.select_option("greater")
    page.locator(".dtcc-dropdown input").first.fill("31")
    above = int((architectures["psnr_db"] > 31).sum())
    assert 0 < above < len(architectures)
    expect(page.locator(".dt-info")).to_contain_text(f"of {above} ")


def test_a_row_finds_its_point_and_a_point_its_row_and_detail(
    page: Page, source: Source, architectures: pd.DataFrame
) -> None:
    row = page.locator("#trials tbody tr").nth(4)
    name = row.locator("td").first.inner_text()
    row.click()
    chosen = architectures[architectures["label"] == name].iloc[0]
    ring = page.evaluate(
        "(() => { const d = document.getElementById('plane').data.at(-1); return [d.x[0], d.y[0]] })()"
    )
    assert ring == [chosen["kflop_per_px_dec"], chosen["rd_loss"]]
    assert page.locator("#detail h3").inner_text() == name
    assert chosen["spec_id"].split(";")[0] in page.locator("#detail").inner_text()

    # A point on another page of the table: the worst of the frontier's first family, by a real click.
    target = expected(architectures, "kflop_per_px_dec", "rd_loss")[0]
    page.evaluate("scrollTo(0, 0)")
    place = page.evaluate(
        """(label) => {
          const plane = document.getElementById("plane"), box = plane.getBoundingClientRect();
          const l = plane._fullLayout, row = rdc.group().rows.find((row) => rdc.label(row) === label);
          return [box.x + l.xaxis._offset + l.xaxis.d2p(rdc.value(row, "kflop_per_px_dec")),
                  box.y + l.yaxis._offset + l.yaxis.d2p(rdc.value(row, "rd_loss"))];
        }""",
        target,
    )
    page.mouse.move(*place)
    page.wait_for_selector("#plane .hoverlayer .hovertext")
    hover = page.locator("#plane .hoverlayer .hovertext").text_content() or ""
    for part in (target, "Rate-distortion loss", "kFLOP/px", "million", "ms", "dB", "P(on the frontier)"):
        assert part in hover, part
    page.mouse.click(*place)
    expect(page.locator("#detail h3")).to_have_text(target)
    assert page.locator("#trials tbody tr.chosen td").first.inner_text() == target
    assert page.locator("#best button.chosen .label").inner_text() == target
    page.locator("#detail details.spec summary").click()
    tree = json.loads(page.locator("#detail details.spec pre").inner_text())
    spec_id = architectures.loc[architectures["label"] == target, "spec_id"].item()
    assert tree == json.loads((source.folder / f"trials/{spec_id}/spec.json").read_text())


def test_all_trials_are_in_the_table_the_failed_ones_with_their_reason(page: Page, source: Source) -> None:
    page.select_option("#rows-of", "trials")
    assert f"of {len(source.frame)}" in page.locator(".dt-info").inner_text()
    failed = source.frame.loc[source.frame["status"] == "failed", "spec_id"].item()
    first = page.locator("#trials tbody tr").first
    best = source.frame.sort_values("rd_loss", kind="stable")["label"].iloc[0]
    assert first.locator("td").first.inner_text() == best, "what has no value comes last"
    assert failed in page.locator("#failures").inner_text()
    page.fill(".dt-search input", "status failed")
    assert "of 1 " in page.locator(".dt-info").inner_text()
    assert EVIL.strip() in page.locator("#failures").inner_text()


def test_text_of_strangers_is_shown_and_does_nothing(page: Page) -> None:
    page.fill(".dt-search input", "onerror")
    cell = page.locator("#trials tbody tr td").first
    assert cell.text_content() == EVIL
    cell.click()
    assert page.locator("#detail h3").text_content() == EVIL
    texts = page.evaluate("document.getElementById('plane').data.flatMap((trace) => trace.hovertext || [])")
    assert [text.count("<img") for text in texts] == [0] * len(texts)
    assert sum("&lt;img" in text for text in texts) == 1
    assert page.locator("img[src=x]").count() == 0


def test_keys_reach_a_row_and_the_slider(page: Page) -> None:
    page.locator("#trials tbody tr").nth(2).focus()
    page.keyboard.press("Enter")
    name = page.locator("#trials tbody tr").nth(2).locator("td").first.inner_text()
    assert page.locator("#detail h3").inner_text() == name
    page.locator("#slider").focus()
    before = page.locator("#slider").input_value()
    page.keyboard.press("ArrowRight")
    assert float(page.locator("#slider").input_value()) > float(before)


def test_reconstructions_stand_under_a_slider_at_rates_that_match(page: Page, source: Source) -> None:
    page.locator("#pictures").scroll_into_view_if_needed()
    assert page.locator("#left-caption").inner_text() == "Left: the original"
    for image in ("#left-image", "#right-image"):
        assert page.evaluate(f"document.querySelector('{image}').naturalWidth") == 64
    box = page.locator("#slider").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 40, steps=5)
    page.mouse.up()
    clip = page.evaluate("document.getElementById('left-image').style.clipPath")
    cut = float(clip.split("inset(0")[1].split("%")[0].replace("px", ""))
    assert 15 < cut < 25
    # Right: a trial. Left: the others, those with the nearest rate on this image first.
    page.select_option("#image", "1")
    shown = page.locator("#right").input_value()
    offered = page.locator("#left option").evaluate_all("options => options.slice(1).map((o) => o.value)")
    image = page.locator("#image option").nth(1).inner_text()
    scores = source.images[source.images["image"] == image].set_index("spec_id")["bpp"]
    gaps = [abs(np.log(scores[spec_id] / scores[shown])) for spec_id in offered]
    assert len(gaps) == 11
    assert gaps == sorted(gaps)
    page.select_option("#left", offered[0])
    assert f"{scores[offered[0]]:.4f} bit/px" in page.locator("#left-caption").inner_text()
    source_of = "document.getElementById('{}').src"
    assert page.evaluate(source_of.format("left-image")) != page.evaluate(source_of.format("right-image"))


def test_curves_stand_beside_those_of_the_same_images(page: Page) -> None:
    traces = "document.getElementById('curves-figure').data"
    visible = f"{traces}.filter((t) => t.meta && t.visible).map((t) => t.meta)"
    assert sorted(page.evaluate(visible)) == ["bpg", "vtm"]
    assert page.evaluate(f"{traces}.filter((t) => t.mode === 'lines+markers').map((t) => t.x.length)") == [
        5,
        5,
    ]
    page.locator("#references label", has_text="ELIC (2022)").locator("input").check()
    assert sorted(page.evaluate(visible)) == ["bpg", "elic", "vtm"]


def test_another_comparison_changes_the_whole_page(page: Page) -> None:
    first = page.locator("#verdict").inner_text()
    choices = page.locator("#group option").all_text_contents()
    assert len(choices) > 1
    assert choices[0].startswith("lmbda 0.013, quick")
    page.select_option("#group", "1")
    assert page.locator("#verdict").inner_text() != first
    assert page.locator("#plane-title").inner_text() != ""
    assert page.locator("#trials tbody tr").count() == int(choices[1].rpartition("(")[2].rstrip(")"))


def saved(page: Page, button: str, tmp_path: Path) -> bytes:
    with page.expect_download(timeout=PATIENCE_MS) as download:
        page.click(button)
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    return path.read_bytes()


def test_everything_can_be_taken_away(page: Page, source: Source, tmp_path: Path) -> None:
    page.fill(".dt-search input", "swint-hyper")
    (tmp_path / "t.csv").write_bytes(saved(page, "#csv", tmp_path))
    table = pd.read_csv(tmp_path / "t.csv", float_precision="round_trip")
    wanted = source.frame[source.frame["label"].str.contains("swint-hyper")]
    assert sorted(table["label"]) == sorted(wanted["label"])
    assert sorted(table["rd_loss"]) == sorted(wanted["rd_loss"]), "to the last digit"
    tree: dict[str, Any] = json.loads(saved(page, "#json", tmp_path))
    assert [trial["spec_id"] for trial in tree["trials"]] == list(source.frame["spec_id"])
    assert [trial["bpp"] for trial in tree["trials"]] == [
        None if pd.isna(bpp) else bpp for bpp in source.frame["bpp"]
    ]
    assert saved(page, "#svg", tmp_path).startswith(b"<svg")
    assert saved(page, "#png", tmp_path).startswith(b"\x89PNG")


def test_a_large_screen_and_paper_hold_it_too(page: Page) -> None:
    page.set_viewport_size({"width": 1920, "height": 1080})
    page.wait_for_timeout(300)
    box = page.locator("#plane-note").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 1080
    page.emulate_media(media="print")
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("#plane").is_visible()


def test_a_table_of_the_least_columns_shows_every_point(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "least.csv").write_text(
        "label,lmbda,bpp,psnr_db,rd_loss,kmac_per_px_dec\n"
        "a,0.013,0.4,28,2.0,3\nb,0.013,0.5,29,1.8,5\nc,0.013,0.6,30,1.5,9\nd,0.013,0.7,29,1.6,12.5\n"
    )
    written = write_page(read(tmp_path / "least.csv"), tmp_path / "page.html").path
    with opened_page(written, browser) as page:
        assert page.locator("#plane .scatterlayer .points path").count() == 4 + 1
        assert frontier_in(page) == ["a", "b", "c"]
        assert page.locator("#detail h3").inner_text() == "c"
        assert not page.locator("#families").is_visible()
        assert not page.locator("#names").is_visible()
        assert "null" not in page.locator("body").inner_text()
        assert page.locator("#curves-figure .scatterlayer .points path").count() == 4


def test_a_sweep_of_which_all_failed_shows_why_first(browser: Browser, tmp_path: Path) -> None:
    made = write_sweep(tmp_path / "s", [result(width, status="failed") for width in (40, 48)])
    with opened_page(write_page(read(made), tmp_path / "page.html").path, browser) as page:
        assert page.locator("#verdict").inner_text() == "No trial can be compared; the reasons stand below."
        box = page.locator("#failures tbody tr").last.bounding_box()
        assert box is not None
        table = page.locator("#table").bounding_box()
        assert table is not None
        assert box["y"] + box["height"] < min(800, table["y"])
        assert "loss is not finite, three times" in page.locator("#failures").inner_text()
        assert not page.locator("#plane").is_visible()
        row = page.locator("#trials tbody tr").first
        row.click()
        assert page.locator("#detail h3").inner_text() == row.locator("td").first.inner_text()
