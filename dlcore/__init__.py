"""A functional deep-learning training framework on JAX. See README.md for a map of the rooms."""

__version__ = "0.1.0"
