"""Graphs and sparse matrices, and the pure functions on them."""
