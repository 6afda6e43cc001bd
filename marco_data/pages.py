"""The HTML pages that the project writes: how their templates are rendered, and the policy that each of them has."""

import base64
import hashlib
from pathlib import Path

import jinja2
import markupsafe


def environment(folder: Path, *, autoescape: bool = True) -> jinja2.Environment:
    """Returns the templates in `folder`, in which values are escaped and `policy` is known."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["policy"] = policy
    return templates


def policy(script: str = "", images: str = "data:") -> markupsafe.Markup:
    """Returns a page's Content-Security-Policy as a `meta` element: nothing from elsewhere, and no script but `script`.

    `script` is the text of the page's one `script` element, known by its hash. It must come from this project alone:
    names belong in a data block, by the filter `tojson`. `images`: where images come from.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"; script-src 'sha256-{digest}'" if script else ""
    rules = f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src {images}; style-src 'unsafe-inline'"
    return markupsafe.Markup('<meta http-equiv="Content-Security-Policy" content="{}">').format(rules + scripts)
