"""The version, from which the package's metadata take it."""

__version__ = "0.2.0"
