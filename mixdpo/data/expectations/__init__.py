"""Validation gates: what a table must be before the next stage may use it.

`suites` says what is expected of each table, `rules` what tables share, `custom` adds what Great Expectations lacks,
`runner` runs them, `gate` decides (accept, quarantine, stop), `verdict` holds the decision in words, `page` shows it.

Great Expectations takes seconds to import, so importing this package does not; `library` does, for those that need it.
"""
