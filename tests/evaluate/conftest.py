"""Each test here may ask for float64."""

from oracles import float64  # noqa: F401
