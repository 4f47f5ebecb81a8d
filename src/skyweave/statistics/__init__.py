"""Statistics of maps: arrays in, long-form tables and verdicts out."""
