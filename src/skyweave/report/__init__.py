"""Figures, tables and the page that people read; drawn from files, nothing is computed here."""
