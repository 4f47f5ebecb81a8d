"""Simulated skies: spectra, Gaussian fields, and what happens to them before they are observed."""
