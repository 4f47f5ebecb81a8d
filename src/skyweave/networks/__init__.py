"""Networks: one file an architecture, the registry that builds them, and the card that goes along.

Importing the modules imports Keras; importing this package does not.
"""
