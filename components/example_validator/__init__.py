"""The gate behind ExampleGen: a run whose examples do not fit the curated schema stops here."""
