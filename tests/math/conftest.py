"""The tests here may run with and without jit, and in float64."""

from oracles import compiled, float64  # noqa: F401
