"""Ahead-of-time compilation of a jitted function, with the options that a backend is faster with.

Compiling before the first call separates its time from the run's, gives the program's cost and
memory, and makes a retrace impossible: a compiled program refuses other shapes. A program may also
be compiled for devices that are not there, to be looked at.
"""

import re
import time
from collections.abc import Callable, Mapping
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
# How hard the compiler tries, by the numbers of XLA's EffortLevel; "default" is its own choice.
LEVELS: Mapping[str, int | None] = {"default": None, "O0": 9, "O1": 19, "O2": 29, "O3": 39}


class OutOfMemory(Exception):
    """A program needs more memory than its devices have; the compiler gave it up. needed: bytes per
    device, None where it did not say."""

    def __init__(self, needed: int | None):
        super().__init__(f"The program needs {needed} bytes on each device.")
        self.needed = needed


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


def compile_program(lowered: jax.stages.Lowered) -> Program:
    """A lowered function compiled for the devices at hand."""
    start = time.perf_counter()
    compiled = _compiled(jax.default_backend(), lowered, {})
    return Program(compiled, time.perf_counter() - start)


def _compiled(platform: str, lowered: jax.stages.Lowered, options: dict) -> jax.stages.Compiled:
    if platform != "cpu":
        return lowered.compile(compiler_options=options)
    try:
        return lowered.compile(compiler_options={**_CPU_OPTIONS, **options})
    except jax.errors.JaxRuntimeError as error:
        # The option is experimental; a jaxlib that has renamed it must still run.
        if "xla_cpu_experimental_ynn_fusion_type" not in str(error):
            raise
        return lowered.compile(compiler_options=options)


def compile_for(platform: str, lowered: jax.stages.Lowered, level: str) -> Program:
    """A program for devices that need not be there ("cpu", "tpu", "cuda"), at one of LEVELS. Raises
    OutOfMemory where the compiler refuses it for that."""
    effort, start = LEVELS[level], time.perf_counter()
    options = {} if effort is None else {"optimization_level": effort}
    if platform == "cuda":
        options["xla_gpu_autotune_level"] = 0  # which would try the kernels on the card
    try:
        compiled = _compiled(platform, lowered, options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(needed_bytes(str(error))) from error
    return Program(compiled, time.perf_counter() - start)


def needed_bytes(message: str) -> int | None:
    """The bytes that a program would use at least, from what the TPU compiler says of its lack of
    memory, in either of its forms."""
    found = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message) or re.search(
        r"\(([\d.]+)([KMGT]?)\) exceeds available HBM", message
    )
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " ")) if found else None


def run_once(function: Callable, *args, **jit_options) -> Any:
    """The function's value, compiled in haste: for what runs once, such as drawing the first
    params, a CPU takes five times longer to optimise than to run."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options, **jit_options)(*args)


def flops(function: Callable, *args) -> float:
    """Floating-point operations of one call by the compiler's own count, without compiling.

    Loops are counted as one pass, so `function` must hold none that matters.
    """
    cost = jax.jit(function).lower(*args).cost_analysis()
    return float((cost or {}).get("flops", float("nan")))
