"""The cost of a model: operations, seconds, bytes. Works for any family."""

import resource
import time
from collections.abc import Callable

import jax
import numpy as np

from genzoo.runtime.agreement import of_first
from genzoo.runtime.compilation import Program


def peak_memory_bytes() -> int:
    """Peak memory so far: of the first device if it reports it, otherwise of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_calls(call: Callable[[], object], least_seconds: float, least_calls: int = 3) -> list:
    """The seconds of each call, repeated until both limits are reached. With several processes the
    clock of the first one decides. A warm-up call is not counted."""
    jax.block_until_ready(call())
    seconds: list[float] = []
    while of_first(lambda: sum(seconds) < least_seconds or len(seconds) < least_calls):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


def summary(
    program: Program, seconds: list[float], *, examples: int, parts: int, flops: float
) -> dict:
    """The figures of one program.

    seconds: the time of each call. examples: per call. parts: steps (or network evaluations) per
    call. flops: floating-point operations of one part.
    """
    each = np.array(seconds) / parts
    median = float(np.median(each))
    low, high = (float(q) for q in np.percentile(each, [10, 90]))
    return {
        "compile_seconds": round(program.compile_seconds, 3),
        "step_seconds": {"median": median, "p10": low, "p90": high, "calls": len(seconds)},
        "examples_per_second": examples / (median * parts),
        "flops_per_second": flops / median,
        "temporary_bytes": program.temporary_bytes(),
        "peak_memory_bytes": peak_memory_bytes(),
    }
