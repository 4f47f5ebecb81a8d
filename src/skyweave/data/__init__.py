"""Shards of maps on disk, their split, their normalization, and the feeding of batches."""
