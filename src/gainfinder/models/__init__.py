"""Models: a reference becomes a `Classifier`."""
