"""Figures and the report of a result, beside a reference or alone."""
