"""Annotations of shapes: they are checked while the tests run, and no public one is left bare."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from functools import cached_property

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from shapes import ROOMS

from genzoo.math import continuous, gaussian

SCHEDULE = continuous.Straight()


def test_shapes_that_do_not_fit_are_refused():
    x = jnp.ones((2, 3, 4))
    gaussian.q_sample(SCHEDULE, x, jnp.ones(2), x)
    gaussian.q_sample(SCHEDULE, np.ones((2, 3)), np.float32(0.5), np.ones((2, 3)))
    for arguments in ((x, jnp.ones(3), x), (x, jnp.ones(2), x[:1]), (x, jnp.ones((2, 1)), x)):
        with pytest.raises(jaxtyping.TypeCheckError, match="q_sample"):
            gaussian.q_sample(SCHEDULE, *arguments)
    with pytest.raises(jaxtyping.TypeCheckError):
        jax.jit(lambda t: gaussian.q_sample(SCHEDULE, x, t, x))(jnp.ones(3))
    with pytest.raises(jaxtyping.TypeCheckError):
        gaussian.q_sample(SCHEDULE, x.astype(int), 0.5, x)


def test_programs_of_their_own_run_unchecked():
    program = (
        "import sys, jax.numpy as jnp; from genzoo.math import continuous, gaussian;"
        "x = jnp.ones(3); gaussian.transition(continuous.Straight(), x.astype(int), x / 2, x / 4);"
        "sys.exit('beartype' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def modules() -> Iterator[types.ModuleType]:
    """Those of the checked rooms."""
    for name in ROOMS:
        room = importlib.import_module(name)
        yield room
        for found in pkgutil.walk_packages(getattr(room, "__path__", ()), f"{name}."):
            yield importlib.import_module(found.name)


def public(place: str, namespace: dict) -> Iterator[tuple[str, object]]:
    """(name, function or class) of what others may call, with the methods of classes."""
    for name, thing in namespace.items():
        full = f"{place}.{name}"
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(thing, property):
            thing = thing.fget
        elif isinstance(thing, cached_property):
            thing = thing.func
        elif isinstance(thing, classmethod | staticmethod):
            thing = thing.__func__
        if inspect.isclass(thing) and thing.__qualname__ == name:
            yield full, thing
            yield from public(full, vars(thing))
        elif inspect.isfunction(thing) and not thing.__name__.startswith(("_", "<")):
            yield full, thing


def is_bare(annotation: object) -> bool:
    """Whether a type says array without saying which. What a function handed over takes is its own
    affair: nothing can check it here."""
    if annotation in (jax.Array, np.ndarray):
        return True
    if typing.get_origin(annotation) is Callable:
        return False
    return any(map(is_bare, typing.get_args(annotation)))


def bare(name: str, thing: object) -> list[str]:
    """The parameters, results and fields that are annotated with bare arrays, or not at all."""
    hints = typing.get_type_hints(thing)
    if inspect.isfunction(thing):
        wanted = [*inspect.signature(thing).parameters, "return"]
        wanted = [one for one in wanted if one not in ("self", "cls")]
    else:
        wanted = [one for one in vars(thing).get("__annotations__", ()) if not one.startswith("_")]
    return [f"{name}: {one}" for one in wanted if one not in hints or is_bare(hints[one])]


def test_no_public_array_is_without_its_shape():
    things = {}
    for module in modules():
        own = {
            n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
        }
        things |= dict(public(module.__name__, own))
    assert "genzoo.math.schedules.Schedule.alpha" in things and len(things) > 100
    assert [line for name, thing in things.items() for line in bare(name, thing)] == []


def test_bare_arrays_are_found():
    def whole(x: jax.Array, y: int, f: Callable[[jax.Array], int]) -> tuple[np.ndarray | None, int]:
        return x

    def half(x, y: jaxtyping.Float[jax.Array, " B"]) -> jaxtyping.Float[jax.Array, " B"]:
        return x

    assert bare("whole", whole) == ["whole: x", "whole: return"] and bare("half", half) == [
        "half: x"
    ]
