"""Find what other trained models know that yours does not, and move it into yours."""

__version__ = "0.1.0"
