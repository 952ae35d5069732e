"""Reference curves: those that are shipped, and files of one's own."""

import math
from pathlib import Path

import pytest

from analysis import anchors as package
from analysis.anchors import load_anchor, names
from analysis.anchors.table import ANCHOR_COLUMNS, PSNR_RULE, image_name, read_points
from analysis.errors import AnalysisError

HEAD = "codec,dataset,image,setting,bpp,psnr_db"


def write(path: Path, *lines: str, head: str = HEAD) -> str:
    path.write_text("\n".join([head, *lines]) + "\n")
    return str(path)


def two_codecs(path: Path) -> str:
    """Two images, two settings, two codecs: means by hand below."""
    rows = [
        f"{codec},own,{image},{setting},{bpp},{psnr_db}"
        for codec, factor in (("a", 1), ("b", 2))
        for image, setting, bpp, psnr_db in (
            ("one", "q=1", 0.1 * factor, 30.0),
            ("two", "q=1", 0.3 * factor, 28.0),
            ("one", "q=2", 0.2 * factor, 33.0),
            ("two", "q=2", 0.6 * factor, 32.0),
        )
    ]
    return write(path, *rows)


# --------------------------------------------------------------------------------------------- shipped


def test_every_shipped_point_has_its_source_and_every_anchor_its_facts() -> None:
    assert names()[0] == "bpg"
    for name in names():
        anchor = load_anchor(name)
        assert anchor.dataset == "kodak"
        assert anchor.source
        assert all((anchor.title, anchor.colour, anchor.psnr_rule, anchor.averaging))
    published = [name for name in names() if not load_anchor(name).images]
    assert all("@" in load_anchor(name).source for name in published)
    sizes = {name: len(load_anchor(name).curve.bpp) for name in published}
    assert {"bpg": 52, "bpg_compressai": 8, "vtm": 8, "elic": 6, "cool_chic_v5": 5}.items() <= sizes.items()


def test_who_measures_psnr_otherwise_says_so() -> None:
    assert load_anchor("bpg").caution == load_anchor("bpg_compressai").caution == ""
    assert load_anchor("vtm").caution == (
        "PSNR of vtm is RGB against the source after that conversion, not against the PNG; "
        f"that of trials is {PSNR_RULE}"
    )
    assert "at most 1 % of rate" in load_anchor("vtm").note
    assert "clamped and not rounded" in load_anchor("mbt2018_mean").caution


def test_codecs_measured_for_the_package_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"mycodec,kodak,kodim{n:02},{q},{bpp},{psnr_db + n},enc,1.0,{PSNR_RULE}"
        for n in range(1, 25)
        for q, bpp, psnr_db in (("q=1", 0.1, 20.0), ("q=2", 0.2, 22.0))
    ]
    path = write(tmp_path / "measured.csv", *lines, head=f"{HEAD},encoder,version,psnr_rule")
    monkeypatch.setattr(package, "_MEASURED", Path(path))
    for cached in (package._measured, package._names, package._shipped):
        monkeypatch.setattr(package, cached.__name__, cached.__wrapped__)
    assert names()[-1] == "mycodec"
    anchor = load_anchor("mycodec")
    assert (anchor.title, anchor.caution, len(anchor.images)) == ("mycodec (enc 1.0)", "", 24)
    assert anchor.curve.psnr_db == pytest.approx((32.5, 34.5))  # mean of 1..24 is 12.5


# ---------------------------------------------------------------------------------------- files of images


def test_per_image_rows_give_a_curve_per_image_and_one_of_their_means(tmp_path: Path) -> None:
    anchor = load_anchor(two_codecs(tmp_path / "own.csv") + ":a")
    assert (anchor.name, anchor.dataset, anchor.image_count) == ("own:a", "own", 2)
    assert anchor.curve.bpp == pytest.approx((0.2, 0.4))  # (0.1 + 0.3) / 2, (0.2 + 0.6) / 2
    assert anchor.curve.psnr_db == pytest.approx((29.0, 32.5))  # (30 + 28) / 2, (33 + 32) / 2
    assert anchor.images["two"].bpp == (0.3, 0.6)
    assert anchor.images["two"].name == "own:a on two"
    assert "computed from those of 2 images" in anchor.averaging


def test_a_file_of_several_codecs_wants_a_choice(tmp_path: Path) -> None:
    path = two_codecs(tmp_path / "own.csv")
    with pytest.raises(AnalysisError, match=r"holds 2 codecs; name one: .*own\.csv:a, .*own\.csv:b$"):
        load_anchor(path)
    with pytest.raises(AnalysisError, match="has no codec 'c'; it has a, b"):
        load_anchor(f"{path}:c")
    with pytest.raises(AnalysisError, match=r"anchor file .*none\.csv does not exist"):
        load_anchor(f"{tmp_path}/none.csv:a")


def test_a_file_that_is_really_called_so_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.csv:b.csv").write_text("dataset,bpp,psnr_db\nown,0.1,30\nown,0.2,32\n")
    assert load_anchor(str(tmp_path / "a.csv:b.csv")).curve.bpp == (0.1, 0.2)


def test_mean_rows_must_be_the_means_of_the_images_rows(tmp_path: Path) -> None:
    path = Path(two_codecs(tmp_path / "own.csv"))
    rows = path.read_text()
    path.write_text(f"{rows}a,own,mean,q=1,0.2000,29.001\na,own,,q=2,0.4,32.5\n")
    assert load_anchor(f"{path}:a").curve.bpp == pytest.approx((0.2, 0.4))
    path.write_text(f"{rows}a,own,mean,q=1,0.2100,29.0\n")
    with pytest.raises(
        AnalysisError, match=r"states a mean of 0\.2100 bpp, 29\.000 dB at q=1, its images give"
    ):
        load_anchor(f"{path}:a")
    path.write_text(f"{rows}a,own,mean,q=3,0.2100,29.0\n")
    with pytest.raises(AnalysisError, match="at q=3, its images give nothing; leave the mean rows out"):
        load_anchor(f"{path}:a")


def test_a_setting_that_lacks_an_image_has_no_mean(tmp_path: Path) -> None:
    rows = ("a,own,one,q=1,0.1,30", "a,own,two,q=1,0.2,31", "a,own,one,q=2,0.3,33")
    with pytest.raises(AnalysisError, match="no point at q=2 for two; every setting needs all 2 images"):
        load_anchor(write(tmp_path / "own.csv", *rows))


def test_points_of_images_need_a_setting(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="gives no setting for points of images"):
        load_anchor(write(tmp_path / "own.csv", "a,own,one,,0.1,30", "a,own,two,,0.2,31"))


def test_an_image_without_a_curve_is_kept_apart(tmp_path: Path) -> None:
    rows = [
        f"a,own,{image},{q},{bpp},{psnr_db}"
        for image, points in {"good": ((0.1, 30), (0.2, 33)), "odd": ((0.2, 30), (0.2, 30.5))}.items()
        for q, (bpp, psnr_db) in zip(("q=1", "q=2"), points, strict=True)
    ]
    anchor = load_anchor(write(tmp_path / "own.csv", *rows))
    assert list(anchor.images) == ["good"]
    assert "'own on odd' is not monotone" in anchor.odd_images["odd"]
    assert anchor.image_count == 2


def test_part_of_kodak_is_not_kodak(tmp_path: Path) -> None:
    rows = [f"a,kodak,kodim0{n},q={q},0.{q},{30 + q}" for n in (1, 2) for q in (1, 2)]
    with pytest.raises(AnalysisError, match="has 2 images and calls them kodak, which has 24; give part"):
        load_anchor(write(tmp_path / "own.csv", *rows))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("kodim01.png", "kodim01"), ("set/kodim01.PNG", "kodim01"), ("scene.1", "scene.1"), ("mean", "mean")],
)
def test_images_are_called_by_their_file_names_without_extension(given: str, wanted: str) -> None:
    assert image_name(given) == wanted


def test_the_columns_that_are_written_are_read(tmp_path: Path) -> None:
    values = "x,own,i1.png,q=1,0.25,31.5,0.98,e,1,c,p,a,s"
    (point,) = read_points(Path(write(tmp_path / "own.csv", values, head=",".join(ANCHOR_COLUMNS))))
    assert (point.codec, point.image, point.bpp, point.psnr_db) == ("x", "i1", 0.25, 31.5)
    assert point.facts == {
        "encoder": "e", "version": "1", "colour": "c", "psnr_rule": "p", "averaging": "a", "source": "s",
    }  # fmt: skip


# ---------------------------------------------------------------------------------------- files of means


@pytest.mark.parametrize("key", ["psnr-rgb", "psnr"])
def test_a_results_json_of_compressai_is_an_anchor(tmp_path: Path, key: str) -> None:
    (tmp_path / "kodak").mkdir()
    path = tmp_path / "kodak" / "codec.json"
    path.write_text(f'{{"name": "x", "results": {{"bpp": [0.1, 0.2], "{key}": [28.0, 30.0]}}}}')
    anchor = load_anchor(str(path))
    assert (anchor.dataset, anchor.curve.psnr_db) == ("kodak", (28.0, 30.0))
    assert (anchor.psnr_rule, anchor.image_count) == ("not stated", 24)


def test_what_a_file_states_is_kept_and_what_it_does_not_is_said(tmp_path: Path) -> None:
    path = write(
        tmp_path / "own.csv",
        "own,0.1,30,x264,7",
        "own,0.2,32,x264,7",
        head="dataset,bpp,psnr_db,encoder,version",
    )
    anchor = load_anchor(path)
    assert (anchor.title, anchor.image_count, anchor.source) == ("own (x264 7)", None, path)
    assert anchor.caution == f"PSNR of own is not stated; that of trials is {PSNR_RULE}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bpp,psnr_db\n0.1,30\n", "lacks dataset; needs bpp, psnr_db and dataset"),
        ("dataset,bpp,psnr_db\nkodak,0.1,30\nclic,0.2,31\n", "mixes clic, kodak; keep one set of images"),
        ("dataset,bpp,psnr_db\nkodak,little,30\nkodak,0.2,31\n", "row 1: bpp and psnr_db must be numbers"),
        ("dataset,bpp,psnr_db\nkodak,0.1,30\n", "has 1 points; needs at least 2"),
        ("dataset,bpp,psnr_db\nkodak,0.1,30\nkodak,0.2,inf\n", r"row 2: is the point \(0.2 bpp, inf dB\)"),
        ("dataset,bpp,psnr_db\nkodak,0.1,30\nkodak,0,31\n", "bpp must be greater than 0 and both finite"),
        ("dataset,bpp,psnr_db\nkodak,0.1,30\nkodak,0.2\n", "row 2: lacks psnr_db"),
        ("dataset,setting,bpp,psnr_db\nk,q,0.1,30\nk,q,0.2,31\n", "has a codec on k at q twice"),
        ("", "lacks bpp, psnr_db, dataset"),
    ],
)
def test_anchor_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(AnalysisError, match=message):
        load_anchor(str(tmp_path / "own.csv"))


def test_unknown_anchors_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"anchor 'nix' is not known; known: bpg, bpg_compressai, vtm, "):
        load_anchor("nix")
    with pytest.raises(AnalysisError, match=r"anchor file nothing\.csv does not exist"):
        load_anchor("nothing.csv")
    (tmp_path / "bad.json").write_text('{"results": []}')
    with pytest.raises(AnalysisError, match="is no results JSON of CompressAI"):
        load_anchor(str(tmp_path / "bad.json"))


def test_curves_and_anchors_compare_and_hash() -> None:
    assert load_anchor("bpg") == load_anchor("bpg")
    assert hash(load_anchor("bpg")) == hash(load_anchor("bpg"))
    assert math.isclose(load_anchor("elic").curve.bpp[0], 0.1235)
