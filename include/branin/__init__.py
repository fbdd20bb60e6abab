"""The example: the Branin function as data, Gaussian-process regression as the algorithm, and a picture of the result.

The algorithm travels to the data and runs there on its own, so ``algorithm.py`` imports nothing of this package.
"""
