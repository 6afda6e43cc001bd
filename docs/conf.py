"""The documentation site: Sphinx reads the Markdown pages and the docstrings of the public API (`make docs`)."""

import pathlib
import re
from importlib.metadata import version as installed_version

import sphinx.application

ROOT = pathlib.Path(__file__).parents[1]
ROOT_PAGES = {
    "architecture": "ARCHITECTURE.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "k8s": "k8s/README.md",
    "security": "SECURITY.md",
}
"""Pages of the site that are files elsewhere in the repository, where people look for them first."""

project = "MARCO pipeline"
author = "The MARCO pipeline contributors"
version = release = installed_version("marco-pipeline")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
# Docstrings quote code in single backticks, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False
myst_heading_anchors = 4


def resolve_page(app: sphinx.application.Sphinx, page: str, source: list[str]) -> None:
    """Reads the file that `ROOT_PAGES` names for a page, and turns links between files into links of the site."""
    path = ROOT / ROOT_PAGES.get(page, f"docs/{page}.md")
    pages = {file: f"{name}.md" for name, file in ROOT_PAGES.items()}

    def resolve(link: re.Match[str]) -> str:
        target, mark, anchor = link[1].partition("#")
        if not target or "://" in target:
            return link[0]
        file = (path.parent / target).resolve().relative_to(ROOT).as_posix()
        inside = pages.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else f"../{file}")
        return f"]({inside}{mark}{anchor})"

    if path.suffix == ".md" and path.is_file():
        source[0] = re.sub(r"\]\(([^)\s]+)\)", resolve, path.read_text(encoding="utf-8"))


def setup(app: sphinx.application.Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", resolve_page)
