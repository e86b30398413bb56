"""Shapes and types of arguments and results, checked at every call while the tests run.

conftest.py calls `check_shapes` before genzoo is imported. It changes this process alone: programs
that tests start, as those of users, run unchecked.
"""

import jaxtyping
from beartype import BeartypeConf, beartype

ROOMS = ("genzoo.math.gaussian",)
"""The packages whose functions are checked; their public ones name the shapes of all arrays."""

# An int serves where a float is asked for, as for every other checker of types.
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check_shapes() -> None:
    """Wraps all functions of `ROOMS` as they are imported."""
    jaxtyping.install_import_hook(ROOMS, "shapes.typechecked")
