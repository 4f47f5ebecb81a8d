"""Training: losses, steps, the loop, and a state that resumes it bit for bit.

Importing the modules imports Keras; importing this package does not.
"""
