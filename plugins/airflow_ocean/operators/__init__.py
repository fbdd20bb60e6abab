"""Operators for Ocean Compute-to-Data, one module per noun: assets, datatokens, compute."""
