"""How long an answer takes, of a teacher and of its student, about some nodes and about all."""

ENGINES = ("eager", "compiled", "onnx")
"""What runs a network: torch as it is, compiled by torch, ONNX Runtime."""
REPEATS, SECONDS = 50, 60.0
"""Timed answers of each network about so many nodes, and the time after which fewer will do."""
