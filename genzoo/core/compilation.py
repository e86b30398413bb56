"""Ahead-of-time compilation of a jitted function, with the options that a backend is faster with.

Compiling before the first call separates its time from the run's, gives the program's cost and
memory, and makes a retrace impossible: a compiled program refuses other shapes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

# On a CPU, XLA's library for fused convolutions computes their weight gradient 1.5 times slower
# than the Eigen path does, while its reductions are the faster ones: leave it those and the dots.
# Measured on the 35.7M U-Net, batch 8: 15 % of a training step.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}


@dataclass(frozen=True)
class Program:
    """A compiled function. Call it with arguments of the compiled shapes."""

    compiled: jax.stages.Compiled
    compile_seconds: float

    def __call__(self, *args):
        """The function's value, of arguments of the compiled shapes."""
        return self.compiled(*args)

    def temporary_bytes(self) -> int | None:
        """Scratch memory of one call per device, where the backend tells."""
        analysis = self.compiled.memory_analysis()
        return getattr(analysis, "temp_size_in_bytes", None)


def compile_program(function: Callable, *args, **jit_options) -> Program:
    """`jax.jit(function, **jit_options)` lowered and compiled for `args` (arrays or shapes)."""
    start = time.perf_counter()
    lowered = jax.jit(function, **jit_options).lower(*args)
    if jax.default_backend() == "cpu":
        try:
            compiled = lowered.compile(compiler_options=_CPU_OPTIONS)
        except jax.errors.JaxRuntimeError as error:
            # The option is experimental; a jaxlib that has renamed it must still run.
            if "xla_cpu_experimental_ynn_fusion_type" not in str(error):
                raise
            compiled = lowered.compile()
    else:
        compiled = lowered.compile()
    return Program(compiled, time.perf_counter() - start)


def run_once(function: Callable, **jit_options) -> Any:
    """The function's value (it takes no arguments), compiled in haste: for what runs once, such as
    drawing the first params, a CPU takes five times longer to optimise than to run."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options, **jit_options)()


def flops(function: Callable, *args) -> float:
    """Floating-point operations of one call by the compiler's own count, without compiling.

    Loops are counted as one pass, so `function` must hold none that matters.
    """
    cost = jax.jit(function).lower(*args).cost_analysis()
    return float((cost or {}).get("flops", float("nan")))
