"""Simulate, train on and validate cosmic microwave background and foreground skies."""

__version__ = "0.1.0"
