"""Reads the content of a page back, without the code that wrote it."""

from html.parser import HTMLParser

UNSEEN = {"style", "title", "script"}
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """`sourced`: (attributes, text) of every element with `data-source`; `loose`: all other text, citations left out.

    `images`: the attributes of every image; `tags`: every tag; `links`: every `href` and `src`.
    """

    def __init__(self, html):
        super().__init__()
        self.sourced, self.loose, self.images, self.links, self.tags = [], [], [], [], []
        self._open = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag in VOID:
            return
        if "data-source" in attributes:
            self.sourced.append([attributes, ""])
        self._open.append((tag, "data-source" in attributes))

    def handle_endtag(self, tag):
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"

    def handle_data(self, text):
        if any(sourced for _, sourced in self._open):
            self.sourced[-1][1] += text
        elif not any(tag in UNSEEN or tag == "cite" for tag, _ in self._open):
            self.loose.append(text)


def value_at(report, source):
    """Returns the value at `a.0.b`."""
    for part in source.split("."):
        report = report[int(part) if isinstance(report, list) else part]
    return report


def read_number(shown):
    """Returns (value, half a unit of its last digit, whether it is a percentage) of a number as the page shows it."""
    text = shown.replace(",", "").replace("−", "-").replace("\u202f", " ").strip()
    percent = text.endswith("%") or text.endswith(" %")
    text = text.rstrip("% s")
    decimals = len(text.partition(".")[2])
    return float(text), 0.5 * 10.0**-decimals, percent
