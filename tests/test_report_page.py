"""The report's page: self-contained, honest about failures, and whole in a browser."""

import base64
import gzip
import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import browser
import report_inputs as inputs
from skyweave.errors import UserError
from skyweave.report.embed import number
from skyweave.report.page import build_report
from skyweave.statistics.verdicts import read_verdicts, write_verdicts

needs_chromium = pytest.mark.skipif(not browser.installed(), reason="needs chromium")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `build_report` takes, with all files drawn."""
    drawn = inputs.drawn(tmp_path_factory)
    return {
        "study": inputs.SETTINGS,
        "runs": [("resunet", drawn["run"])],
        "decomposition": [("repaired", drawn["decomposition"])],
        "inpainting": [("pconv", drawn["inpainting"])],
        "scans": [("lambda", inputs.write_scan(tmp_path_factory.mktemp("scan")))],
        "sky": [("dust", drawn["sky"])],
        "cmb": [("cmb", drawn["cmb"])],
        "foregrounds": [("forse", drawn["foregrounds"])],
        "full_sky": [("forse", drawn["full_sky"])],
        "versions": {"python": "3.12", "skyweave": "0.1.0"},
    }


@pytest.fixture(scope="module")
def page(study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    build_report(path, **study)
    return path


@pytest.fixture
def own(study: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A copy of the study whose files a test may change."""
    copy = dict(study)
    kinds = ("runs", "sky", "cmb", "foregrounds", "full_sky", "decomposition", "inpainting")
    for kind in (*kinds, "scans"):
        copy[kind] = [(name, tmp_path / kind / name) for name, _ in study[kind]]
        for (_, old), (_, new) in zip(study[kind], copy[kind], strict=True):
            shutil.copytree(old, new)
    return copy


class Elements(HTMLParser):
    """All start tags with their attributes, and the text within each kind of tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[tuple[tuple[str, ...], str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append((tuple(self.open), data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]

    def texts(self, tag: str) -> list[str]:
        return [text.strip() for path, text in self.text if path and path[-1] == tag]


@pytest.fixture(scope="module")
def elements(page: Path) -> Elements:
    return Elements(page.read_text(encoding="utf-8"))


def test_asks_the_network_for_nothing(page: Path, elements: Elements) -> None:
    assert not elements.open, "an element is not closed"
    assert not elements.all("script")
    for tag, attributes in elements.found:
        for key in ("src", "href", "srcset", "data", "poster", "action"):
            value = attributes.get(key) or ""
            assert not value or value.startswith(("data:", "#")), (tag, key, value[:60])
        assert not [key for key in attributes if key.startswith("on")]
    style = "".join(text for path, text in elements.text if path[-1:] == ("style",))
    assert "url(" not in style
    assert "@import" not in style
    for image in elements.all("img"):
        kind, _, content = (image["src"] or "").partition(";base64,")
        if kind == "data:image/svg+xml":
            svg = base64.b64decode(content).decode()
            links = re.findall(r"""(?:href|src)=["']([^"']*)|url\(([^)]*)\)""", svg)
            assert all((a or b).startswith("#") for a, b in links)
    assert page.stat().st_size < 10e6


def test_each_figure_has_title_caption_alternative_text_and_table(
    page: Path, elements: Elements, study: dict[str, Any]
) -> None:
    html = page.read_text(encoding="utf-8")
    figures = re.findall(r"<figure .*?</figure>", html, re.DOTALL)
    assert len(figures) == 7 + 5 + 5 + 8 + 6 + 5 + 1
    for figure in figures:
        inside = Elements(figure)
        assert inside.texts("h4")[0]
        assert len(" ".join(inside.texts("figcaption"))) > 80
        assert len(inside.all("img")[0]["alt"] or "") > 20
        assert inside.all("td")
        link = next(a for a in inside.all("a") if "download" in a)
        kind, _, content = (link["href"] or "").partition(";base64,")
        csv = base64.b64decode(content)
        if kind == "data:application/gzip":
            assert (link["download"] or "").endswith(".csv.gz")
            csv = gzip.decompress(csv)
        kind = (link["download"] or "").partition("-")[0]
        folder = "runs" if kind == "run" else kind
        name = re.sub(r"^\w+-\w+-|\.gz$", "", link["download"] or "")
        assert csv == (study[folder][0][1] / "figures" / name).read_bytes()


def test_verdicts_are_all_there_and_failures_say_so(elements: Elements, page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    rows = re.findall(r'<tr role="row" class="verdict">.*?</tr>', html, re.DOTALL)
    words = [re.search(r">(PASS|FAIL)<", row)[1] for row in rows]  # type: ignore[index]
    assert words == ["FAIL"] * 5 + ["PASS"] * 6
    assert "tau: pixel correlation" in rows[0]
    assert "0.11" in rows[0]
    assert "&gt; 0.3" in rows[0]
    assert "5 of 11 checks fail." in elements.texts("strong")
    # A value that could not be computed is a failure that shows no number.
    assert "value is nan" in rows[1]
    assert "–" in rows[1]


def test_a_run_and_its_sky_are_told_apart_in_the_checks(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    links = set(re.findall(r'data-label="Of"><a href="#([^"]+)">([^<]+)</a>', html))
    assert links == {
        ("run-resunet", "Run resunet"),
        ("decomposition-repaired", "Run repaired"),
        ("inpainting-pconv", "Run pconv"),
        ("foregrounds-forse", "Run forse"),
        ("full_sky-forse", "Sky of forse"),
        ("sky-dust", "Dataset dust"),
    }


def test_what_the_user_wrote_is_escaped(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "a &lt;b&gt;hard&lt;/b&gt; field &amp; small" in html
    assert "<b>hard" not in html


def test_what_ran_is_told(elements: Elements) -> None:
    cells = elements.texts("td")
    assert "5 292 367" in cells
    assert "20 of at most 20" in cells
    assert "train 80, validation 10, test 10" in cells
    assert "train 5, validation 1, test 2" in cells
    assert "0.9200 ± 0.0100" in cells
    assert "0.7360 ± 0.0100" in cells, "kappa's quadratic estimator"
    assert "0.7000 ± 0.0040" in cells, "pixels in their interval"
    assert "0.81 ± 0.04" in cells
    assert "0.9 (97.5 % above 0.84)" in cells
    assert "40 of at most 40" in cells
    assert "dust, low resolution" in cells
    settings = "".join(elements.texts("pre"))
    assert "seed: 2026" in settings
    assert "parameters: 5292367" in settings


def test_a_decomposition_tells_what_was_bought_and_its_scores(elements: Elements) -> None:
    words = " ".join(elements.texts("p"))
    assert "Lensed E, mean over the bands" in words
    assert "0.230 nearer to the truth's, at the cost of 0.0800 ± 0.0030 of r" in words
    cells = elements.texts("td")
    assert "1.0200 ± 0.0200" in cells, "power of the run"
    assert {"network", "samples", "run plain", "Wiener filter"} <= set(cells)
    assert "345 678" in cells


def test_an_inpainting_tells_its_errors_in_holes(page: Path, elements: Elements) -> None:
    html = page.read_text(encoding="utf-8")
    assert "<h2>Inpainting</h2>" in html
    assert "Rms error in the holes alone" in html
    assert {"Missing", "Gaussian optimum", "Network over optimum"} <= set(elements.texts("th"))
    cells = elements.texts("td")
    at = cells.index("disc, radius 10 pixels")
    row = ["30.7 %", "0.5200 ± 0.0104", "0.5000 ± 0.0100", "0.6000 ± 0.0120", "1.0400 ± 0.0208"]
    assert cells[at + 1 : at + 7] == [*row, "3"]
    assert "7 654 321" in cells
    assert "12 of at most 12" in cells


def test_a_scan_is_one_table_of_all_runs(page: Path, elements: Elements) -> None:
    html = page.read_text(encoding="utf-8")
    part = html[html.index('<section id="scan-lambda"') :]
    rows = re.findall("<tr>.*?</tr>", part[: part.index("</section>")])
    assert len(rows) == 1 + 15
    assert Elements(rows[-1]).texts("td") == ["lambda_15", "150", "0.75"]
    assert "Scans over settings" in elements.texts("h2")
    assert any(a.get("download") == "scan-lambda-table.csv" for a in elements.all("a"))


def test_without_runs_of_a_kind_and_scans_there_is_no_section(
    study: dict[str, Any], tmp_path: Path
) -> None:
    build_report(
        tmp_path / "index.html", **study | {"decomposition": [], "inpainting": [], "scans": []}
    )
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Scans over settings" not in html
    assert "<h2>Decomposition</h2>" not in html
    assert "<h2>Inpainting</h2>" not in html
    assert "Rms error in the holes" not in html
    assert "Power and correlation together" not in html


def test_headings_are_in_order_and_anchors_exist(elements: Elements) -> None:
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in elements.all("a") if (a.get("href") or "").startswith("#")}  # type: ignore[index]
    assert targets <= set(ids)


def test_same_inputs_give_the_same_page(page: Path, study: dict[str, Any], tmp_path: Path) -> None:
    build_report(tmp_path / "again.html", **study)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_study_that_passes_says_so(own: dict[str, Any], tmp_path: Path) -> None:
    for kind in ("runs", "decomposition", "inpainting", "foregrounds"):
        path = own[kind][0][1] / "verdicts.json"
        write_verdicts(path, [{**entry, "passed": True} for entry in read_verdicts(path)])
    build_report(tmp_path / "index.html", **own)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "All 11 checks pass." in html
    assert "FAIL" not in html


def test_only_simulations_make_a_page(study: dict[str, Any], tmp_path: Path) -> None:
    only = {key: study[key] for key in ("study", "cmb", "versions")}
    build_report(tmp_path / "index.html", runs=[], sky=[], **only)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "No check was made." in html
    assert html.count("<figure ") == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("runs", "verdicts.json"),
        ("runs", "card.json"),
        ("runs", "metrics.csv"),
        ("runs", "figures/calibration.svg"),
        ("runs", "history.csv"),
        ("runs", "figures/figures.json"),
        ("runs", "figures/transfer.svg"),
        ("decomposition", "verdicts.json"),
        ("decomposition", "metrics.csv"),
        ("decomposition", "card.json"),
        ("decomposition", "figures/fidelity.svg"),
        ("inpainting", "verdicts.json"),
        ("inpainting", "metrics.csv"),
        ("inpainting", "card.json"),
        ("inpainting", "figures/examples.png"),
        ("scans", "table.csv"),
        ("foregrounds", "verdicts.json"),
        ("foregrounds", "scores.csv"),
        ("foregrounds", "card.json"),
        ("foregrounds", "figures/nearest.csv"),
        ("full_sky", "verdicts.json"),
        ("full_sky", "figures/map.png"),
        ("sky", "verdicts.json"),
        ("sky", "places.csv"),
        ("sky", "figures/minkowski.csv"),
        ("cmb", "split.csv"),
    ],
)
def test_a_missing_input_is_named_and_no_page_is_left(
    own: dict[str, Any], tmp_path: Path, kind: str, name: str
) -> None:
    (own[kind][0][1] / name).unlink()
    with pytest.raises(UserError, match=re.escape(Path(name).name)):
        build_report(tmp_path / "index.html", **own)
    assert not (tmp_path / "index.html").exists()


def test_settings_without_datasets_are_refused(study: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="datasets"):
        build_report(tmp_path / "index.html", **{**study, "study": {"seed": 1}})


def test_numbers_as_they_are_read() -> None:
    assert [number(x) for x in (None, float("nan"), -0.00012345678, 1234567, "a")] == [
        "–",
        "–",
        "−0.00012346",
        "1234567",
        "a",
    ]


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_page_is_whole_in_a_browser(page: Path, dark: bool) -> None:
    assert browser.check_page(page, dark=dark) == []


@needs_chromium
def test_the_browser_check_sees_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    path.write_text(
        "<!DOCTYPE html><title>x</title><link rel=icon href='data:,'>"
        "<div style='width: 2000px'>wide</div>"
        "<img src='data:image/png;base64,AAAA' alt='no image'>"
        "<table><tr class=verdict style='display: none'><td>hidden</td></tr></table>"
        "<a href='#nowhere'>dead</a><p id=twice></p><p id=twice></p>"
        "<script>console.error('out loud')</script>"
    )
    found = "\n".join(browser.check_page(path))
    for word in ("no title", "px wide in a", "no image", "hidden", "#nowhere", "twice", "out loud"):
        assert word in found
