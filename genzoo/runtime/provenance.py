"""Finds the operations of a JAX function from which its first non-finite values come.

The function is traced, and a second program computes the same values together with one flag for
each intermediate array: whether all of its entries are finite. From a non-finite result the flags
lead back to the operations that made non-finite numbers of finite ones. Infinities that are meant,
such as masks of -inf, do not reach the result and are therefore not found.

JAX keeps the name of the Flax module and the source line with each operation. Calls are opened;
loops and branches count as one operation. In a large program all operations of a module in a row
count as one, named by the last, because flags for each would take minutes to compile.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from genzoo.core.tree import path_string
from genzoo.core.types import Array, Tree

# Operations that only arrange the entries of their single operand, whose flag they share.
_ARRANGING = {
    "reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "rev", "copy", "copy_p",
    "stop_gradient", "sharding_constraint", "reduce_precision",
}  # fmt: skip
_LOOPS = {"scan", "while", "cond", "shard_map", "custom_linear_solve"}
_CONSTANT = -1  # a number in the program itself
_MOST_FINE = 1000  # operations up to which each has flags of its own


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An operation that made non-finite numbers, or a non-finite argument.

    module: the path of the Flax module, "" outside of one. operation: the name of JAX's primitive,
    or "argument". place: "file.py:line", or the path of the argument. backward: whether it belongs
    to a derivative.
    """

    module: str
    operation: str
    place: str
    backward: bool = False


@dataclass(frozen=True, kw_only=True)
class _Node:
    """The operation or module that made a flagged value. reads: the flags of what it was made of,
    and _CONSTANT for an infinite constant."""

    origin: Origin
    reads: frozenset[int]


@dataclass(eq=False, kw_only=True)
class _Value:
    """A value of the traced program. node: how it was made. source: the value with the same
    entries, whose flag it shares. flag: its number, once it was needed."""

    array: Any
    node: _Node
    source: "_Value | None" = None
    flag: int | None = None

    @property
    def inexact(self) -> bool:
        return jnp.issubdtype(jnp.result_type(self.array), jnp.inexact)


@dataclass
class _Record:
    """The flags of a program while it is traced, and what made the values. fine: whether every
    operation has flags, and not only what passes from one module to another."""

    fine: bool
    flags: list[Array] = field(default_factory=list)
    nodes: dict[int, _Node] = field(default_factory=dict)

    def flag(self, value: _Value) -> int | None:
        """The number of the flag of a value; None if it can only be finite."""
        if value.source is not None:
            return self.flag(value.source)
        if value.flag is None and value.inexact:
            self.flags.append(~jnp.isfinite(value.array).all())
            value.flag = len(self.flags) - 1
            self.nodes[value.flag] = value.node
        return value.flag

    def reads(self, operands: Sequence[_Value], module: str) -> frozenset[int]:
        """The flags of the operands of an operation in a module."""
        found: set[int] = set()
        for value in operands:
            if value.node.origin.operation == "constant":
                found |= value.node.reads
            elif self.fine or not module or value.node.origin.module != module:
                flag = self.flag(value)
                found |= set() if flag is None else {flag}
            else:
                found |= value.node.reads
        return frozenset(found)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What an examined call gave. kept: the arrays that it returns. followed: by path, the flag of
    each array that was followed; None if it can only be finite."""

    kept: Tree
    followed: Mapping[str, int | None]
    _bad: np.ndarray
    _nodes: Mapping[int, _Node]

    @property
    def non_finite(self) -> tuple[str, ...]:
        """The paths of the followed arrays that hold NaN or infinity."""
        return tuple(path for path, flag in self.followed.items() if self._is_bad(flag))

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where these non-finite numbers come from, in the order of the program."""
        waiting = [flag for flag in self.followed.values() if self._is_bad(flag)]
        seen, ends, constants = set(waiting), [], []
        while waiting:
            flag = waiting.pop()
            bad = [read for read in self._nodes[flag].reads if read == _CONSTANT or self._bad[read]]
            computed = {read for read in bad if read != _CONSTANT}
            if not computed:
                (constants if bad else ends).append(flag)
            waiting += computed - seen
            seen |= computed
        return tuple(dict.fromkeys(self._nodes[flag].origin for flag in sorted(ends or constants)))

    def _is_bad(self, flag: int | None) -> bool:
        return flag is not None and bool(self._bad[flag])


def examined(
    function: Callable[..., tuple[Tree, Tree]], *args: Tree, sharding: Any = None
) -> Examination:
    """Calls a function of arrays once, compiled, and follows its non-finite numbers.

    function: returns (arrays to follow, arrays to keep). sharding: of what the program returns, for
    arguments on several devices; None for a single one.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    record, followed = _Record(fine=_operations(program.jaxpr) <= _MOST_FINE), {}

    def flagged(*leaves):
        record.flags.clear()
        record.nodes.clear()
        inputs = [
            _Value(array=x, node=_Node(origin=_argument(path), reads=frozenset()))
            for path, x in zip(_paths(args), leaves, strict=True)
        ]
        results = _run(record, program.jaxpr, program.consts, inputs, "")
        names = _paths(shapes[0])
        followed.update(zip(names, map(record.flag, results[: len(names)]), strict=True))
        flags = jnp.stack(record.flags) if record.flags else jnp.zeros(0, bool)
        return [value.array for value in results[len(names) :]], flags

    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    kept, flags = jax.jit(flagged, compiler_options=options, out_shardings=sharding)(
        *jax.tree.leaves(args)
    )
    return Examination(
        kept=jax.tree.unflatten(jax.tree.structure(shapes[1]), kept),
        followed=followed,
        _bad=np.asarray(flags),
        _nodes=record.nodes,
    )


def _paths(values: Tree) -> list[str]:
    return [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(values)]


def _argument(path: str) -> Origin:
    return Origin(module="", operation="argument", place=path.partition("/")[2])


def _run(
    record: _Record, jaxpr: Any, consts: Sequence, args: Sequence[_Value], outer: str
) -> list[_Value]:
    """Evaluates a jaxpr and records how its values are made. outer: the names around it."""
    env: dict[Any, _Value] = {}

    def read(var) -> _Value:
        return _constant(var.val) if isinstance(var, jex.Literal) else env[var]

    env.update(zip(jaxpr.invars, args, strict=True))
    env.update(zip(jaxpr.constvars, map(_constant, consts), strict=True))
    for eqn in jaxpr.eqns:
        operands = [read(var) for var in eqn.invars]
        names = "/".join(filter(None, (outer, str(eqn.source_info.name_stack))))
        inner = _opened(eqn)
        if inner is not None:
            results = _run(record, inner[0], inner[1], operands, names)
        else:
            results = _operate(record, eqn, operands, names)
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _constant(array: Any) -> _Value:
    inexact = jnp.issubdtype(jnp.result_type(array), jnp.inexact)
    bad = inexact and not isinstance(array, jax.core.Tracer) and not np.isfinite(array).all()
    origin = Origin(module="", operation="constant", place="")
    return _Value(
        array=array, node=_Node(origin=origin, reads=frozenset({_CONSTANT} if bad else ()))
    )


def _operate(record: _Record, eqn: Any, operands: Sequence[_Value], names: str) -> list[_Value]:
    with eqn.ctx.manager:
        arrays = eqn.primitive.bind(*(value.array for value in operands), **eqn.params)
    arrays = arrays if eqn.primitive.multiple_results else [arrays]
    if eqn.primitive.name in _ARRANGING and len(operands) == 1:
        (source,) = operands
        return [_Value(array=arrays[0], node=source.node, source=source)]
    module = _module(names)
    origin = Origin(
        module=module,
        operation=eqn.primitive.name,
        place=_place(eqn.source_info.traceback),
        backward="transpose(" in names,
    )
    node = _Node(origin=origin, reads=record.reads(operands, module))
    return [_Value(array=array, node=node) for array in arrays]


def _operations(jaxpr: Any) -> int:
    """The number of operations in a jaxpr, with opened calls."""
    inner = (_opened(eqn) for eqn in jaxpr.eqns)
    return sum(1 if one is None else _operations(one[0]) for one in inner)


def _opened(eqn: Any) -> tuple[Any, Sequence] | None:
    """The (jaxpr, constants) that a call runs once on its operands; None for other operations."""
    if eqn.primitive.name in _LOOPS:
        return None
    for param in eqn.params.values():
        inner = getattr(param, "jaxpr", param)
        if isinstance(inner, jex.Jaxpr) and len(inner.invars) == len(eqn.invars):
            return inner, getattr(param, "consts", ())
    return None


def _module(names: str) -> str:
    """The path of a module from JAX's names, "transpose(jvp(UNet))/down/conv" -> UNet/down/conv."""
    # Inside rematerialised modules the names of the first pass stand before those of the second.
    last = names.rpartition("jvp(")[2]
    path = re.sub(r"(transpose|vmap)\(|\)|rematted_computation/", "", last)
    return "/".join(filter(None, path.split("/")))


def _place(traceback: Any) -> str:
    """The innermost line of this package in a traceback, "families/vae.py:120"; "" if none."""
    for frame in traceback.frames if traceback is not None else ():
        _, inside, file = frame.file_name.rpartition("/genzoo/")
        if inside and file != "runtime/provenance.py":
            return f"{file}:{frame.line_num}"
    return ""
