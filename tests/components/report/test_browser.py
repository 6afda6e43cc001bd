"""A report in headless Chromium: no errors, no requests, nothing wider than the screen of a phone."""

import json

import pytest

from components.report.numbers import numbers
from components.report.page import page
from components.report.plots import figures, thumbnail
from components.settings import ReportOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report_file(tmp_path_factory, predictions, evaluation, real_images):
    """A report of 200 predictions, with real photographs in place of the images and of the overlays."""
    small = [thumbnail(path.read_bytes()) for path in real_images.values()]
    table = predictions(200)
    report = numbers(table, evaluation(), ReportOptions(), temperature=0.7, about={"model": "marco-1", "created": ""})
    report["about"] |= {"synthetic": False, "versions": [], "mlflow_run_id": "0" * 64, "commit": "c" * 40}
    report["about"] |= {"data_fingerprint": "f" * 64, "dirty": True}
    report = json.loads(json.dumps(report))
    rows = {image["row"] for kind in report["errors"] for image in kind["images"]}
    rows |= {image["row"] for image in report["disagreements"]}
    pictures = {f"{kind}/{row}": small[row % 6] for row in rows for kind in ("image", "overlay")}
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(report, figures(report), pictures))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_opens_without_errors_requests_or_overflow(browser, report_file, width, scheme):
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    problems, requests = [], []
    tab.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(report_file.as_uri(), wait_until="load")
    assert problems == []
    assert [url for url in requests if not url.startswith("data:")] == [report_file.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert tab.evaluate(broken) == 0
    assert tab.evaluate("document.images.length") > 20
    tab.close()


def test_text_contrasts_with_its_background(browser, report_file):
    """Contrast of at least 4.5 (WCAG 2.1, AA) for text, in both schemes, by the formula of that standard."""
    script = """() => {
        const value = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
        return Object.fromEntries(['--page', '--card', '--ink', '--soft', '--accent', '--good', '--good-back', '--bad',
            '--bad-back'].map(name => [name, value(name)]));
    }"""
    for scheme in ("light", "dark"):
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(report_file.as_uri())
        colours = tab.evaluate(script)
        pairs = [(text, back) for text in ("--ink", "--soft", "--accent") for back in ("--page", "--card")]
        for text, back in [*pairs, ("--good", "--good-back"), ("--bad", "--bad-back")]:
            lighter, darker = sorted((luminance(colours[text]), luminance(colours[back])), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (scheme, text, back)
        tab.close()


def luminance(colour):
    """Relative luminance of `#rrggbb`."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
