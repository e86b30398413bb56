"""Where the time on the device goes: the kernels of a profile, by name and by kind."""

import re
from collections import defaultdict
from pathlib import Path

MOST = 20  # kernels that are listed
# The first pattern that a kernel's name matches is its kind. cuDNN's and cuBLAS's kernels are named
# by both; XLA's own are fusions, torch's are triton kernels or "at::native".
KINDS = {
    "attention": r"flash|fmha|sdpa|attention|softmax",
    "convolution": r"conv|wgrad|dgrad|fprop|implicit|cudnn",
    "layout": r"nchw|nhwc|transpose|copy|memcpy|memset",
    "product": r"gemm|cublas|cutlass|nvjet|dot|sm90_xmma|wgmma",
    "reduction": r"reduc|norm|welford",
    "elementwise": r"fusion|triton|elementwise|vectorized|loop|multi_tensor|foreach|adam",
}


def kind_of(kernel: str) -> str:
    """The kind of a kernel, by its name."""
    return next((k for k, p in KINDS.items() if re.search(p, kernel, re.IGNORECASE)), "other")


def summary(seconds: dict[str, float], calls: int, span: float) -> dict:
    """Summarises kernels and their seconds over several calls: ms per call in total, by kind and of
    the longest kernels. busy: the fraction of `span`, the seconds from the first kernel to the
    last."""
    total, by_kind = sum(seconds.values()), defaultdict(float)
    for name, spent in seconds.items():
        by_kind[kind_of(name)] += spent

    def ms(spent: float) -> float:
        return round(1e3 * spent / calls, 4)

    def longest(of: dict[str, float]) -> list[tuple[str, float]]:
        return sorted(of.items(), key=lambda item: -item[1])

    return {
        "ms_a_call": ms(total),
        "busy": round(total / span, 3) if span else None,
        "by_kind": {kind: ms(spent) for kind, spent in longest(by_kind)},
        "kernels": {name[:120]: ms(spent) for name, spent in longest(seconds)[:MOST]},
    }


def of_jax(file: Path, calls: int) -> dict:
    """The summary of an XPlane file of jax.profiler. It is empty on a CPU, where the profile has no
    device."""
    from jax.profiler import ProfileData

    seconds, first, last = defaultdict(float), float("inf"), 0.0
    for plane in ProfileData.from_file(str(file)).planes:
        if not plane.name.startswith("/device:"):
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):  # others say the same again, by XLA's operations
                continue
            for event in line.events:
                seconds[event.name] += event.duration_ns * 1e-9
                first = min(first, event.start_ns * 1e-9)
                last = max(last, (event.start_ns + event.duration_ns) * 1e-9)
    return summary(seconds, calls, max(last - first, 0.0))


def of_torch(profiler, calls: int) -> dict:
    """The summary of a torch.profiler.profile that has ended."""
    from torch.autograd import DeviceType

    events = [e for e in profiler.events() if e.device_type == DeviceType.CUDA]
    seconds = defaultdict(float)
    for event in events:
        seconds[event.name] += event.time_range.elapsed_us() * 1e-6
    starts = [e.time_range.start for e in events]
    span = (max(e.time_range.end for e in events) - min(starts)) * 1e-6 if events else 0.0
    return summary(seconds, calls, span)
