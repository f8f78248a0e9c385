"""What the figures in the documentation were measured by; see README.md. Run from the repository's root."""
