"""The op table: one file a family, each with a list `CASES`."""
