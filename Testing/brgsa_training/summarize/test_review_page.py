"""The review page in a browser: keys, blind mode, counter, resume, and the table that it saves."""

import csv
import io
import json
import re

import pytest
from web_page import Page, browse

from brgsa_training.summarize.findings import Finding, Summary
from brgsa_training.summarize.review import read_review, write_review_html
from brgsa_training.summarize.scope import Status

NAMES = ("Cardiomegaly", "Consolidation", "Pleural effusion", "Lung nodule")
TEXT = "A nodule is seen. Consolidation is seen. No pleural effusion."


@pytest.fixture
def page(tmp_path, vocabulary) -> str:
    findings = (
        Finding("Lung nodule", "nodule", Status.PRESENT, "A nodule is seen."),
        Finding("Consolidation", "Consolidation", Status.PRESENT, "Consolidation is seen."),
        Finding("Pleural effusion", "pleural effusion", Status.ABSENT, "No pleural effusion."),
    )
    summaries = [Summary(name, "train", (), TEXT, findings) for name in ("case_1", "=case_2")]
    write_review_html(tmp_path / "review.html", summaries, NAMES, vocabulary)
    text = (tmp_path / "review.html").read_text(encoding="utf-8")
    Page(text)
    return text


def act(tmp_path, page: str, script: str) -> dict:
    """Run a script on the page; what it leaves in `result` comes back."""
    tail = f"""<script>
const press = (...keys) => keys.forEach(key =>
  document.body.dispatchEvent(new KeyboardEvent("keydown", {{key, bubbles: true}})));
const words = place => [...document.querySelectorAll("tr[data-report]")].map(row => row.querySelector(place));
const shown = () => words("td.machine > *").map(item => item.getClientRects().length > 0);
const result = {{}};
(async () => {{ {script}
document.body.insertAdjacentHTML("beforeend", "<pre id=result></pre>");
document.getElementById("result").textContent = JSON.stringify(result); }})();
</script></body>"""
    done = browse(tmp_path, page.replace("</body>", tail), "--virtual-time-budget=2000", "--dump-dom")
    assert "Uncaught" not in done.stderr
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:]
    return json.loads(Page(found.group(0)).text[0])


SAVED = """
  const blobs = [];
  URL.createObjectURL = blob => (blobs.push(blob), "about:blank");
  HTMLAnchorElement.prototype.click = () => {};
  document.getElementById("save").click();
  result.table = await blobs[0].text();
"""


def test_only_rows_that_were_answered_are_saved_as_reviewed(tmp_path, page, vocabulary):
    result = act(
        tmp_path,
        page,
        'result.before = document.getElementById("counter").textContent;'
        'press("1", "2", "Enter", "3", "0", "ArrowUp", "0");'
        'result.after = document.getElementById("counter").textContent;' + SAVED,
    )
    assert result["before"] == "0 of 8 rows reviewed, 0 of 2 reports, 0 changed"
    assert result["after"] == "3 of 8 rows reviewed, 0 of 2 reports, 1 changed"
    rows = list(csv.DictReader(io.StringIO(result["table"])))
    assert [row["reader"] for row in rows] == ["present", "absent", "absent", "", "", "", "", ""]
    assert rows[4]["report"] == "'=case_2"  # so that no spreadsheet takes it for a formula
    (tmp_path / "c.csv").write_text(result["table"], encoding="utf-8")
    read = read_review(tmp_path / "c.csv", vocabulary)
    assert [(row.abnormality, row.machine, row.reader) for row in read] == [
        ("Consolidation", "present", "present"),
        ("Lung nodule", "present", "absent"),
        ("Pleural effusion", "absent", "absent"),
    ]


def test_blind_mode_hides_the_machines_answer_until_one_is_chosen(tmp_path, page):
    result = act(
        tmp_path,
        page,
        """
        result.open = shown();
        document.getElementById("blind").click();
        result.order = words("td").map(item => item.textContent).slice(0, 4);
        result.hidden = shown();
        result.heights = new Set([...document.querySelectorAll("tr[data-report]")].map(row => row.offsetHeight)).size;
        press("Enter");
        result.refused = document.getElementById("counter").textContent;
        press("2");
        result.chosen = shown();
        const mark = document.querySelector("mark");
        result.marked = getComputedStyle(mark).backgroundColor;
        """,
    )
    assert all(result["open"]) and not any(result["hidden"])
    assert result["heights"] == 1  # a taller row would tell that there is evidence
    assert result["order"] == list(NAMES)  # not the machine's order, which would give its answers away
    assert result["refused"].startswith("0 of 8") and result["chosen"] == [True] + [False] * 7
    assert result["marked"] == "rgba(0, 0, 0, 0)"


def test_a_page_that_is_opened_again_goes_on_and_so_does_a_saved_table(tmp_path, page):
    act(tmp_path, page, 'press("1", "2"); await new Promise(done => setTimeout(done, 500));')
    loaded = """
      const table = "report,abnormality,machine,reader\\n'=case_2,Cardiomegaly,not mentioned,present\\n" +
        "case_1,Nothing,present,absent\\n";
      const transfer = new DataTransfer();
      transfer.items.add(new File([table], "c.csv"));
      const input = document.getElementById("load");
      window.alert = text => { result.alert = text; };
      localStorage.clear();
      input.files = transfer.files;
      input.dispatchEvent(new Event("change"));
      await new Promise(done => setTimeout(done, 500));
      result.counter = document.getElementById("counter").textContent;
      result.kept = JSON.parse(localStorage.getItem(memory));
    """
    result = act(tmp_path, page, loaded)
    assert result["alert"] == "1 rows of the table are not on this page."
    assert ["=case_2", "Cardiomegaly", "present"] in result["kept"]
    restored = act(
        tmp_path,
        page.replace(
            "<head>",
            "<head><script>localStorage.setItem('brgsa-review ' + "
            + json.dumps(re.search(r'data-review="(\w+)"', page)[1])
            + ', \'[["case_1","Lung nodule","absent"]]\')</script>',
        ),
        'result.counter = document.getElementById("counter").textContent;',
    )
    assert restored["counter"] == "1 of 8 rows reviewed, 0 of 2 reports, 1 changed"
