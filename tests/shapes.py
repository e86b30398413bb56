"""Shapes and types of arguments and results, checked at every call while the tests run.

conftest.py calls `check_shapes` before genzoo is imported. It changes this process alone: programs
that tests start, as those of users, run unchecked.
"""

from collections.abc import Callable

import jaxtyping
from beartype import BeartypeConf, beartype

ROOMS = ("genzoo.math", "genzoo.samplers", "genzoo.families", "genzoo.systems")
"""The packages whose functions are checked; their public ones name the shapes of all arrays."""

# An int serves where a float is asked for, as for every other checker of types.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typechecked(function: Callable) -> Callable:
    """The function with its types checked; constructors of families accept stand-ins for parts."""
    constructs = function.__qualname__.endswith(".__init__")
    if constructs and function.__module__.startswith("genzoo.families"):
        return function
    return _checked(function)


def check_shapes() -> None:
    """Wraps all functions of `ROOMS` as they are imported."""
    jaxtyping.install_import_hook(ROOMS, "shapes.typechecked")
