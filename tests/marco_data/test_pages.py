"""Every page has a policy, and names of any kind stay text on it: in a browser they open, load and run nothing."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from marco_data import pages
from marco_data.relabelling import merging, sheets

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted(
    path.relative_to(ROOT)
    for package in ("marco_data", "marco_scoring", "components", "pipelines")
    for path in (ROOT / package).rglob("*")
    if path.suffix in (".html", ".jinja", ".j2", ".py") and "<!doctype" in path.read_text().casefold()
)
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"><script>alert(2)</script><b title='",
    "</script><script>alert(3)</script>",
    "<!--<script>",
    "' onmouseover='alert(4)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(5)",
    "</style><style>@import url(http://127.0.0.1:9/x)</style>",
    "\u2028\u202e<svg onload=alert(6)>",
)


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_every_page_has_the_policy_and_no_handlers_in_its_elements(template):
    text = (ROOT / template).read_text()
    assert len(re.findall(r"{{ policy\(", text)) == 1 and "http-equiv" not in text
    assert not re.search(r"<[^>{]*\son[a-z]+=", text)
    assert len(TEMPLATES) == 6


def test_a_policy_allows_the_page_s_script_alone():
    class Policies(HTMLParser):
        def handle_starttag(self, tag, attributes):
            self.content = dict(attributes)["content"]

    parsed = Policies()
    parsed.feed(pages.policy("alert(1);\n"))
    digest = base64.b64encode(hashlib.sha256(b"alert(1);\n").digest()).decode()
    assert parsed.content.startswith("default-src 'none'; ") and "img-src data:;" in parsed.content
    assert parsed.content.endswith(f"; script-src 'sha256-{digest}'")
    assert "script-src" not in pages.policy()


def write_pages(folder):
    """Writes a page of each kind, with hostile names wherever names are, and returns their files."""
    from components.monitoring import drift, two_sample
    from marco_scoring import plate_report
    from tests.marco_scoring.plate_report.test_page import Scripted

    (folder / "images").mkdir()
    Image.new("RGB", (40, 30), (90, 90, 90)).save(folder / "images/1.png")
    rater = folder / "rater.html"
    sheets.write_page(rater, [sheets.Item(0, 1, "images/1.png")], HOSTILE, HOSTILE)
    share = {"agree": 0.5, "kappa": None}
    counts = {"exported": 1, "decided": 1, "changed": 1, "share_changed": 1.0}
    by_class = {name: dict.fromkeys(HOSTILE, 1) for name in HOSTILE}
    report = {
        **{"answered": 1, "exported": 1, "rule": HOSTILE[0], "decided": 1, "undecided": 0, "classes": HOSTILE},
        "splits": {name: {**counts, "by_class": by_class} for name in HOSTILE},
        "raters": {
            name: {"answered": 1, "unanswered": 0, "with_old_labels": share, "with_classifier": share}
            for name in HOSTILE
        },
        "pairs": [{"raters": HOSTILE[:2], "images": 1, **share}],
        "all_raters": {"images": 1, "disagree": 0.1, "kappa": None},
        "paper": merging.PAPER,
    }
    relabelled = folder / "relabelled.html"
    relabelled.write_text(merging.report_page(report), encoding="utf-8")
    cards = [
        {
            **{"imager": name, "style": "alarm", "headline": name, "note": name},
            "figures": [{"title": name, "text": name, "shares": [(name, 0.1, 0.2)]}],
            "thumbnails": [{"title": name, "images": [{"name": name, "data": ""}]}],
            "tests": [{"title": name, "change": name, "alarm": True, "effect": 1, "limit": 1, "adjusted": 0.1}],
        }
        for name in HOSTILE
    ]
    unreadable = [{"imager": name, "name": name, "reason": name} for name in HOSTILE]
    outcome = {"checked": "", "model": {"name": HOSTILE[0]}, "images": 1, "seen": 1, "unreadable": unreadable}
    drifted = folder / "drift.html"
    template = pages.environment(Path(drift.__file__).parent).get_template("drift.html.j2")
    outcome["limits"] = vars(two_sample.Limits())
    drifted.write_text(template.render(report=outcome, cards=cards, summary=HOSTILE[0]), encoding="utf-8")
    files = []
    for number, name in enumerate(HOSTILE):
        path = folder / "plate" / f"{name.replace('/', '_')}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (250 - number, 9 * number, 0)).save(path)
        files.append(path)
    classifier = Scripted()
    classifier.name, classifier.classes = HOSTILE[0], (*HOSTILE[:3], "Crystals")
    plate = folder / "plate.html"
    plate_report.predict_with_report(classifier, files, folder / "scores.csv", plate, plate_report.Options(["marco"]))
    return [rater, relabelled, drifted, plate]


@pytest.mark.slow
def test_hostile_names_do_nothing_in_a_browser(browser, tmp_path):
    for file in write_pages(tmp_path):
        page, seen = browser.new_page(), []
        page.on("dialog", lambda dialog, seen=seen: (seen.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message, seen=seen: seen.append(message.text))
        page.on("pageerror", lambda error, seen=seen: seen.append(str(error)))
        page.on("request", lambda request, seen=seen: seen.append(request.url))
        page.goto(file.as_uri(), wait_until="load")
        allowed = (file.as_uri(), "data:", (tmp_path / "images").as_uri())
        assert [entry for entry in seen if not entry.startswith(allowed)] == [], file
        assert HOSTILE[0] in page.evaluate("document.body.textContent"), file
        # The script that a name would be, had it got into the page.
        script = "Object.assign(document.createElement('script'), {text: 'window.hit = 1'})"
        page.evaluate(f"document.body.append({script})")
        assert page.evaluate("window.hit") is None
