"""Figures and the report of a result, with or without a reference."""
