"""State in files."""
