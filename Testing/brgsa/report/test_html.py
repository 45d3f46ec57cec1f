"""The HTML page: complete, patient-free, safe, and readable in a real browser without a script or a request."""

import struct
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise

import pytest
from web_page import Page, browse

from brgsa.report.html import html_page, write_html
from brgsa.scoring import AbnormalityScore

MADE = datetime(2025, 1, 2, 3, 4, tzinfo=timezone.utc)
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def text(scored):
    return html_page(scored.scores, scored.scan, scored.maps, scored.scorer.weights.plan.to_dict(), MADE)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_score_is_in_the_table_highest_first(scored, page):
    shown = "".join(page.text)
    rows = sorted(scored.scores.scores, key=lambda row: -row.score)
    places = [shown.index(f"{row.score:+.4f}") for row in rows]
    assert places == sorted(places)
    assert all(row.name in shown for row in rows)


def test_what_a_reader_must_know_is_said(scored, page):
    shown = " ".join("".join(page.text).split())
    assert "Model attention, not a segmentation" in shown and "research use only" in shown.lower()
    assert scored.scores.notice and scored.scores.notice in shown
    for finding in scored.scores.findings:
        assert finding.message in shown
    assert scored.scores.settings["weights_checksum"] in shown and "2025-01-02 03:04 UTC" in shown


def test_each_map_has_three_slices_with_an_alternative_text(scored, page):
    pictures = [image for image in page.all("img") if "layer" not in image.get("class", "")]
    assert len(pictures) == 3 * len(scored.maps)
    for plane in ("axial", "coronal", "sagittal"):
        assert sum(plane in image["alt"] for image in pictures) == len(scored.maps)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))


def test_nothing_on_the_page_runs_or_asks_for_anything(page):
    assert not page.all("script") and not page.all("iframe") and not page.all("object") and not page.all("form")
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))


def test_the_page_can_be_walked_by_keyboard_and_heard(page):
    assert page.all("html")[0]["lang"] == "en" and page.all("title")
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = [a["href"][1:] for a in page.all("a")] + [label["for"] for label in page.all("label")]
    targets += [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert set(targets) <= ids
    assert all("scope" in cell for cell in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_the_folder_that_may_hold_a_name_is_not_on_the_page(scored, text):
    message = f"{scored.scores.path}: read from its folder"
    again = html_page(replace(scored.scores, messages=(message,)), scored.scan, [], {}, MADE)
    for shown in (text, again):
        assert "Doe_Jane" not in shown
    assert "scan: read from its folder" in again


def test_text_from_outside_is_escaped_everywhere(scored):
    row = AbnormalityScore(HOSTILE, 0.1, 0.5, 0.05, True)
    settings = scored.scores.settings | {"weights": HOSTILE, "abnormalities": HOSTILE, HOSTILE: HOSTILE}
    finding = replace(scored.scores.findings[0], message=HOSTILE, code=HOSTILE)
    scores = replace(
        scored.scores,
        case=HOSTILE,
        scores=(row,),
        notice=HOSTILE,
        messages=(HOSTILE,),
        findings=(finding,),
        settings=settings,
        seconds={HOSTILE: 1.0},
    )
    hostile = Page(html_page(scores, scored.scan, [replace(scored.maps[0], name=HOSTILE)], {HOSTILE: HOSTILE}, MADE))
    assert not hostile.all("script") and not [image for image in hostile.all("img") if "onerror" in image]
    assert "".join(hostile.text).count("alert(1)") >= 8


def test_probability_threshold_and_answer_appear_only_where_there_are_some(scored, text):
    assert ("Probability" in text) == any(row.probability is not None for row in scored.scores.scores)
    rows = (AbnormalityScore("One", 0.3, 0.25, 0.2, True), AbnormalityScore("Two", 0.1))
    shown = "".join(Page(html_page(replace(scored.scores, scores=rows), scored.scan, [], {}, MADE)).text)
    assert "25.0%" in shown and "+0.2000" in shown and "yes" in shown


def test_equal_scores_do_not_break_the_bars(scored):
    rows = (AbnormalityScore("One", 0.3), AbnormalityScore("Two", 0.3))
    assert "width:100.0%" in html_page(replace(scored.scores, scores=rows), scored.scan, [], {}, MADE)


def test_the_file_is_small_and_complete(scored, tmp_path):
    path = tmp_path / "report.html"
    write_html(path, scored.scores, scored.scan, scored.maps * 2, scored.scorer.weights.plan.to_dict())
    assert path.stat().st_size < 3_000_000
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_a_browser_draws_it_without_a_complaint(text, tmp_path):
    """The page's policy forbids every request and script, so one of either would be a complaint, see below."""
    picture = tmp_path / "page.png"
    done = browse(tmp_path, text, f"--screenshot={picture}", "--window-size=1000,1600")
    assert "CONSOLE" not in done.stderr
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (1000, 1600) and picture.stat().st_size > 50_000


@pytest.mark.parametrize("wrong", ["<script>1</script>", '<img src="https://example.invalid/x.png">'])
def test_the_browser_would_complain_about_a_script_or_a_request(wrong, text, tmp_path):
    done = browse(tmp_path, text.replace("</main>", f"{wrong}</main>"), f"--screenshot={tmp_path / 'page.png'}")
    assert "CONSOLE" in done.stderr and "Content Security Policy" in done.stderr


def test_it_prints_to_pdf(text, tmp_path):
    path = tmp_path / "page.pdf"
    browse(tmp_path, text, f"--print-to-pdf={path}")
    content = path.read_bytes()
    assert content.startswith(b"%PDF") and 1 <= content.count(b"/Type /Page\n") + content.count(b"/Type/Page ") <= 8
