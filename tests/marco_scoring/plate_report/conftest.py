"""Plate pages in headless Chromium."""

import pytest


@pytest.fixture
def visit(browser):
    """Opens a page from its file, in a window as wide as asked; it must cause no errors, requests or overflow."""
    contexts, visits = [], []

    def open_page(path, width=1280, context=None, **options):
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": 844}, **options)
            contexts.append(context)
        page = context.new_page()
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        visits.append((page, path, complaints, requests))
        return page

    yield open_page
    for page, path, complaints, requests in visits:
        assert complaints == []
        assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {path.as_uri()}
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    for context in contexts:
        context.close()
