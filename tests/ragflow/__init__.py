"""A RAGFlow of the tests' own: its tables, rows as it leaves them (whole and broken), and its rules, by version."""
