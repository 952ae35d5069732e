"""The page's content and file; what it does when it is clicked on is in tests/full/test_report_browser.py."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_results import example, families, grid, result, write_sweep

from analysis import report as report_module
from analysis.__main__ import main
from analysis.comparable import Choice
from analysis.errors import AnalysisError
from analysis.figures import MARKERS, family_styles
from analysis.frontier import report as frontier_report
from analysis.load import read
from analysis.objectives import DEFAULT_OBJECTIVES
from analysis.report import contents, folder, payload, words, write_page
from analysis.schema import PAGE_FILE, objective_names

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{data}}\u2028"


def png(side_px: int, shade: int) -> bytes:
    """The smallest honest grey PNG."""
    rows = b"".join(b"\0" + bytes([shade]) * side_px for _ in range(side_px))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def with_shown(tree: dict[str, Any], trials: Path, shade: int) -> dict[str, Any]:
    """The result with two shown images, whose files are written into its trial's folder."""
    trial = trials / tree["spec_id"]
    (trial / "shown").mkdir(parents=True, exist_ok=True)
    shown = []
    for number, score in enumerate(tree["evaluation"]["per_image"][:2]):
        stem = Path(score["name"]).stem
        (trial / f"shown/{stem}.png").write_bytes(png(64, shade))
        (trial / f"shown/{stem}.original.png").write_bytes(png(64, 250 - number))
        entry = {"name": score["name"], "crop": [1, 2, 64, 64]}
        shown.append({**entry, "file": f"shown/{stem}.png", "original": f"shown/{stem}.original.png"})
    tree["evaluation"]["shown"] = shown
    return tree


def unpacked(page: dict[str, Any], name: str) -> list[Any]:
    packed = page["table"][name]
    if "all" in packed:
        return list(packed["all"])
    if "of" in packed:
        return [packed["of"][at] for at in packed["at"]]
    return [packed["same"]] * packed["n"]


class Parts(HTMLParser):
    """Start tags, and the text of scripts by their id or number, as a browser's parser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._attributes: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._attributes = dict(attrs) if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._attributes is not None:
            self.scripts.append((self._attributes, data))
            self._attributes = None


def data_of(path: Path) -> dict[str, Any]:
    scripts = Parts(path.read_text(encoding="utf-8")).scripts
    (text,) = [text for attributes, text in scripts if attributes.get("id") == "data"]
    tree: dict[str, Any] = json.loads(text)
    return tree


def test_the_table_holds_every_number_of_the_source_exactly(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", example()))
    path = tmp_path / "page.html"
    write_page(source, path)
    page = data_of(path)
    assert page["trials"] == len(source.frame)
    for name in source.frame.columns:
        wanted = [
            None if pd.isna(v) or (isinstance(v, float) and not math.isfinite(v)) else v
            for v in source.frame[name].astype(object)
        ]
        if all(v in (None, "") for v in wanted):
            assert name not in page["table"]
        else:
            assert unpacked(page, name)[: page["trials"]] == wanted, name


def test_the_default_group_is_what_the_frontier_command_finds(tmp_path: Path) -> None:
    trees = [*families(), *grid(lmbda=0.025), *grid(seed=1), result(40, status="failed")]
    source = read(write_sweep(tmp_path / "s", trees))
    page = contents(source, list(DEFAULT_OBJECTIVES))
    for at, choice in ((0, None), (1, Choice(lmbda=0.025))):
        found = frontier_report(source, tmp_path / "out", choice=choice, print_table=False, draw=False)
        group = page["groups"][at]
        wanted = found.architectures
        assert [unpacked(page, "arch_id")[row] for row in group["rows"]] == list(wanted["arch_id"])
        for name in ("rd_loss", "kmac_per_px_dec", "bpp"):
            assert [unpacked(page, name)[row] for row in group["rows"]] == list(wanted[name])
        for name in ("on_frontier", "frontier_probability", "rd_loss_low", "seeds"):
            assert group["extra"][name] == list(wanted[name])
        labels = dict(zip(wanted["arch_id"], wanted["label"], strict=True))
        assert group["dominated_by"] == [labels.get(name, "") for name in wanted["dominated_by"]]
    assert page["groups"][0]["extra"]["seeds"].count(2) == 12
    reasons = page["groups"][1]["reasons"]
    assert set(reasons["of"]) == {"", "other lmbda", "status failed"}


def test_groups_beyond_the_most_are_named_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = [tree for lmbda in (0.0067, 0.013, 0.025, 0.05) for tree in grid(lmbda=lmbda)[:3]]
    monkeypatch.setattr(payload, "MAX_GROUPS", 2)
    page = write_page(read(write_sweep(tmp_path / "s", trees)), tmp_path / "page.html")
    assert len(data_of(page.path)["groups"]) == 2
    assert page.notes == (
        "2 smaller groups of comparable trials are not on this page; "
        "python -m analysis frontier --lmbda, --budget and --eval choose them",
    )


def test_curves_are_those_of_the_other_commands_and_references_those_of_the_same_images(
    tmp_path: Path,
) -> None:
    page = contents(read(write_sweep(tmp_path / "s", example())), list(DEFAULT_OBJECTIVES))
    curves = [curve for curve in page["curves"] if len(curve["rows"]) > 1]
    assert [len(curve["rows"]) for curve in curves] == [5, 5]
    for curve in curves:
        bpp = [unpacked(page, "bpp")[row] for row in curve["rows"]]
        assert bpp == sorted(bpp)
        assert curve["dataset_hash"] == page["groups"][0]["dataset_hash"]
    assert {"bpg", "vtm", "elic"} <= {reference["name"] for reference in page["references"]}
    foreign = read(write_sweep(tmp_path / "foreign", grid(dataset="mine")))
    assert contents(foreign, list(DEFAULT_OBJECTIVES))["references"] == []


def test_families_look_as_in_the_figures(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", families()))
    styles = payload.families_json(source.frame)
    assert {name: style["colour"] for name, style in styles.items()} == {
        name: colour for name, (colour, _) in family_styles(source.frame["family"]).items()
    }
    assert len({tuple(style.values()) for style in styles.values()}) == len(styles) == 7


def test_every_marker_of_the_figures_is_drawn_by_the_page_too() -> None:
    drawn = (Path(report_module.__file__).parent / "data.js").read_text(encoding="utf-8")
    shapes = drawn[drawn.index("const shapes") :]
    for marker in {*MARKERS, *payload.SYMBOLS}:
        assert re.search(rf'\s"?{re.escape(payload.SYMBOLS[marker])}"?: \'<', shapes), marker
    assert len(set(payload.SYMBOLS.values())) == len(payload.SYMBOLS)


def test_every_possible_axis_has_a_name_in_words() -> None:
    assert set(objective_names()) <= set(words.NAMES)
    assert len(set(words.NAMES.values())) == len(words.NAMES)


def test_the_verdict_begins_with_the_warning_and_points_to_the_best(tmp_path: Path) -> None:
    path = write_page(read(write_sweep(tmp_path / "s", grid())), tmp_path / "page.html").path
    page = data_of(path)
    group = page["groups"][0]
    loss = unpacked(page, "rd_loss")
    assert loss[group["best"]] == min(loss)
    assert group["warning"].startswith("Undertrained: 0.025 % of the study's 2,000,000 steps")
    assert group["verdict"][0].startswith(f"Best of 12: {unpacked(page, 'label')[group['best']]}, ")
    text = path.read_text(encoding="utf-8")
    assert text.index('<p class="warning">Undertrained') < text.index("<p>Best of 12")


def test_a_heading_says_what_kind_of_source_it_is(tmp_path: Path) -> None:
    made = write_sweep(tmp_path / "mine", grid()[:2])
    table = Path(__file__).parent / "data/example_trials.csv"
    for source, said in ((made, "sweep: mine"), (table, "table: example_trials")):
        text = write_page(read(source), tmp_path / "page.html").path.read_text(encoding="utf-8")
        assert f'<span class="name">{said}</span>' in text


def test_the_menu_of_groups_names_only_what_differs(tmp_path: Path) -> None:
    trees = [*grid(), *grid(lmbda=0.025)[:3]]
    assert titles(tmp_path / "one", trees) == ["lmbda 0.013 (12)", "lmbda 0.025 (3)"]
    trees += grid(warm_start={"spec_id": "0123456789ab"})[:2]
    assert titles(tmp_path / "two", trees) == [
        "lmbda 0.013, quick (12)",
        "lmbda 0.025, quick (3)",
        "lmbda 0.013, quick warm (2)",
    ]
    alike = titles(tmp_path / "three", [*trees, *grid(precision="fp32")[:1]])
    assert re.fullmatch(r"lmbda 0\.013, quick #[0-9a-f]{4} \(12\)", alike[0])
    assert len(set(alike)) == 4
    assert max(map(len, titles(tmp_path / "four", grid(budget="b" * 90, steps=600) + grid()[:2]))) < 40


def titles(folder: Path, trees: list[dict[str, Any]]) -> list[str]:
    return [
        group["title"]
        for group in contents(read(write_sweep(folder, trees)), list(DEFAULT_OBJECTIVES))["groups"]
    ]


def test_the_method_names_data_budget_rules_and_versions(tmp_path: Path) -> None:
    made = write_sweep(tmp_path / "s", grid())
    plan = json.loads((made / "sweep.json").read_text())
    (made / "sweep.json").write_text(json.dumps({**plan, "versions": {"torch": "2.15.0", "python": "3.11"}}))
    page = contents(read(made), list(DEFAULT_OBJECTIVES))
    method = dict(page["groups"][0]["method"])
    assert method["code"] == "torch 2.15.0, python 3.11; git revision 0000000"
    assert "500 steps of 8 crops of 128 x 128 px, bf16" in method["trained on"]
    assert "still falls by" in method["undertrained"]
    assert method["seeds"] == "One seed each."
    assert "P(frontier)" in method
    assert "a1b2c3d4e5f6" in method["images' identity"]


def test_failed_trials_are_listed_with_their_reasons(tmp_path: Path) -> None:
    page = contents(read(write_sweep(tmp_path / "s", example())), list(DEFAULT_OBJECTIVES))
    assert {(f["status"], f["reason"]) for f in page["failures"]} == {
        ("failed", "FloatingPointError: loss is not finite, three times"),
        ("rate_mismatch", "no cause recorded"),
    }
    assert any("with status failed" in line for line in page["asides"])


def test_text_of_strangers_is_text_everywhere(tmp_path: Path) -> None:
    tree = result(48)
    tree |= {"label": EVIL, "family": EVIL}
    failed = result(40, status="failed")
    failed["error"]["message"] = EVIL
    made = write_sweep(tmp_path / "s", [*grid(), tree, failed])
    (made / "trials" / tree["spec_id"] / "spec.json").write_text(json.dumps({"model": EVIL}))
    source = read(made)
    path = write_page(source, tmp_path / "page.html").path
    clean = write_page(read(write_sweep(tmp_path / "clean", grid())), tmp_path / "clean.html").path
    text = path.read_text(encoding="utf-8")
    # To a parser the page has the tags of one without such text, and what was said is there unchanged.
    assert [tag for tag, _ in Parts(text).tags if tag not in ("dt", "dd")] == [
        tag for tag, _ in Parts(clean.read_text(encoding="utf-8")).tags if tag not in ("dt", "dd")
    ]
    page = data_of(path)
    assert EVIL in unpacked(page, "label")
    assert any(spec == {"model": EVIL} for spec in page["specs"])
    assert any(EVIL in failure["reason"] for failure in page["failures"])


def test_the_page_fetches_nothing_and_runs_only_its_own_scripts(tmp_path: Path) -> None:
    path = write_page(read(write_sweep(tmp_path / "s", grid())), tmp_path / "page.html").path
    parts = Parts(path.read_text(encoding="utf-8"))
    policy = next(a["content"] for tag, a in parts.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    for _, attributes in parts.tags:
        for name in ("src", "href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:")), address
        assert not any(name.startswith("on") for name in attributes)


def test_paths_and_hosts_do_not_reach_the_page(tmp_path: Path) -> None:
    failed = result(40, status="failed")
    failed["error"]["message"] = "cannot read /srv/someone/secret/data.png, password=hunter2"
    made = write_sweep(tmp_path / "s", [*grid(), failed])
    spec = {"weights": {"source": "/srv/someone/secret/model.pth"}}
    (made / "trials" / failed["spec_id"] / "spec.json").write_text(json.dumps(spec))
    (made / "trials" / "broken").mkdir()
    (made / "trials" / "broken" / "result.json").write_text("{")
    text = write_page(read(made), tmp_path / "page.html").path.read_text(encoding="utf-8")
    assert "someone" not in text
    assert "hunter2" not in text
    assert str(tmp_path) not in text
    assert "…/model.pth" in json.dumps(data_of(tmp_path / "page.html"), ensure_ascii=False)


def test_two_pages_of_one_source_are_the_same_bytes(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", example()))
    one, other = (write_page(source, tmp_path / f"{n}.html").path.read_bytes() for n in range(2))
    assert one == other


def test_shown_crops_are_embedded_once_as_they_are_with_the_scores_of_their_image(tmp_path: Path) -> None:
    made = tmp_path / "s"
    trees = [with_shown(tree, made / "trials", 10 + n) for n, tree in enumerate(grid()[:3])]
    pictures = contents(read(write_sweep(made, trees)), list(DEFAULT_OBJECTIVES))["pictures"]
    assert [image["crop"] for image in pictures["images"]] == [[1, 2, 64, 64]] * 2
    assert len(pictures["blobs"]) == 2 + 3, (
        "two originals, and a reconstruction of each trial for both images"
    )
    for number, image in enumerate(pictures["images"]):
        assert base64.b64decode(pictures["blobs"][image["original"]]) == png(64, 250 - number)
        for entry in image["entries"]:
            tree = next(tree for tree in trees if tree["spec_id"] == entry["spec_id"])
            score = tree["evaluation"]["per_image"][number]
            assert (entry["bpp"], entry["psnr_db"]) == (score["bpp"], score["psnr_db"])
            assert base64.b64decode(pictures["blobs"][entry["file"]]) == png(64, 10 + trees.index(tree))


def test_pictures_are_capped_the_frontier_first_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "s"
    trees = [with_shown(tree, made / "trials", 10 + n) for n, tree in enumerate(grid())]
    source = read(write_sweep(made, trees))
    page = contents(source, list(DEFAULT_OBJECTIVES))
    group = page["groups"][0]
    at = [row for row, on in zip(group["rows"], group["extra"]["on_frontier"], strict=True) if on]
    best = {unpacked(page, "spec_id")[row] for row in at}
    assert max(unpacked(page, "rd_loss")[row] for row in at) == max(unpacked(page, "rd_loss"))
    monkeypatch.setattr(folder, "MAX_ARCHITECTURES", len(best))
    pictures = contents(source, list(DEFAULT_OBJECTIVES))["pictures"]
    assert {entry["spec_id"] for image in pictures["images"] for entry in image["entries"]} == best
    left = f"{12 - len(best)} more have reconstructions that are left out of this page"
    assert left in pictures["note"]
    monkeypatch.setattr(folder, "MAX_BYTES", 2 * len(png(64, 0)))
    assert contents(source, list(DEFAULT_OBJECTIVES))["pictures"]["images"] == []


def test_a_page_without_crops_says_how_to_get_them(tmp_path: Path) -> None:
    page = contents(read(write_sweep(tmp_path / "s", grid())), list(DEFAULT_OBJECTIVES))
    assert page["pictures"] == {"images": [], "blobs": {}, "note": folder.HOW_TO_GET_THEM}


@pytest.mark.parametrize(
    "shown",
    [
        "no list",
        [{"name": "a", "crop": [0, 0, 64, 64], "file": "../../secret.png", "original": "../../secret.png"}],
        [{"name": "a", "crop": [0, 0, 64, 64], "file": "/etc/passwd", "original": "/etc/passwd"}],
        [{"name": "a", "crop": [0, 0, 64, 64], "file": "result.json", "original": "result.json"}],
        [{"name": "a", "crop": "x", "file": "shown/missing.png", "original": None}],
        [7],
    ],
)
def test_crops_that_a_stranger_s_result_names_elsewhere_are_left_alone(tmp_path: Path, shown: Any) -> None:
    tree = result(48)
    tree["evaluation"]["shown"] = shown
    made = write_sweep(tmp_path / "s", [tree])
    (made / "secret.png").write_bytes(png(64, 1))
    assert contents(read(made), list(DEFAULT_OBJECTIVES))["pictures"]["images"] == []


def test_a_sweep_without_a_comparable_trial_gives_a_page_that_says_so(tmp_path: Path) -> None:
    made = write_sweep(tmp_path / "s", [result(40, status="failed")])
    path = write_page(read(made), tmp_path / "page.html").path
    group = data_of(path)["groups"][0]
    assert (group["warning"], group["best"]) == ("", None)
    assert group["verdict"] == ["No trial can be compared; the reasons stand below."]


def test_the_command_writes_into_the_sweep_and_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_sweep(tmp_path / "s", grid(), planned=2)
    assert main(["report", str(made)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "note: 2 of 14 planned trials have no result yet"
    assert re.fullmatch(rf"{made}/{PAGE_FILE} \(\d\.\d MB\): open it in a browser", said[1])
    table = Path(__file__).parent / "data/example_trials.csv"
    assert main(["report", str(table), "-o", str(tmp_path / "x/other.html")]) == 0
    page = data_of(tmp_path / "x/other.html")
    assert page["specs"] == [None] * page["trials"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "page.pdf"], "--out page.pdf: must be a file that ends in .html"),
        (["--objectives", "beauty,rd_loss"], "objective 'beauty' is not known"),
        (["--objectives", "rd_loss"], "name at least two different ones"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    made = write_sweep(tmp_path / "s", grid())
    assert main(["report", str(made), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_table_that_lacks_an_objective_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("label,lmbda,rd_loss\na,0.013,1.0\n")
    with pytest.raises(AnalysisError, match="t lacks kmac_per_px_dec"):
        write_page(read(path), tmp_path / "page.html")


def test_a_large_page_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "BIG_BYTES", 1000)
    page = write_page(read(write_sweep(tmp_path / "s", grid())), tmp_path / "page.html")
    assert re.fullmatch(r"page\.html has \d MB; browsers take it, mail may not", page.notes[-1])
