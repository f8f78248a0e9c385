"""Data: a reference becomes `Images`."""
