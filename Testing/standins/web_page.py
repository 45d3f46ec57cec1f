"""What the tests of HTML pages look with: a parser, and a browser where there is one."""

import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from waiting import LONGEST_WAIT

VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """Elements, ids and text of a page; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium on this machine")
    return found


def browse(tmp_path, text, *options):
    """Load a page in headless Chromium; its log."""
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    command = [
        chromium(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert done.returncode == 0, done.stderr
    return done
