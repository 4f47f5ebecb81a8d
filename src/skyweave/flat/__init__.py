"""Flat-sky primitives: the patch grid, Fourier pairs, E/B, tapers and beams."""
