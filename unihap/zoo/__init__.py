"""The model zoo: what the papers published and what was measured here, as one page."""
