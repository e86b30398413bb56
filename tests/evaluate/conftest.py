"""All tests here can use float64."""

from oracles import float64  # noqa: F401
