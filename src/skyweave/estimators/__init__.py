"""Classical estimators: what a network must beat."""
