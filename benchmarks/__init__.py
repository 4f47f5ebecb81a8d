"""How fast skyweave is: `python -m benchmarks [names]` from the top of the checkout."""
