"""Names of a report's files."""

HTML_FILE, JSON_FILE, FIGURES = "report.html", "report.json", "figures"
