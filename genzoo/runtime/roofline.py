"""A lower bound on the time of a step: the roofline of Williams et al. 2009 with a third term.

    seconds = max(flops / peak, bytes accessed / memory bandwidth, bytes sent / network)     (1)

Counts are divided by data sheet figures and nothing is run. A real step takes longer, because no
operation reaches its peak and not all of them overlap.
"""

from genzoo.runtime.topology import Chip


def estimate(
    chip: Chip, *, flops: float, bytes_accessed: float | None, bytes_sent: float | None
) -> dict[str, object]:
    """The terms of (1) in seconds, their maximum and the share of peak that it allows, per device.
    bytes_accessed, bytes_sent: None if unknown."""
    sides = {
        "compute": flops / chip.peak_flops,
        "memory": None if bytes_accessed is None else bytes_accessed / chip.hbm_bandwidth,
        "network": None if bytes_sent is None else bytes_sent / chip.network_bandwidth,
    }
    known = {name: seconds for name, seconds in sides.items() if seconds is not None}
    bound = max(known, key=known.get)
    seconds = known[bound]
    return {
        "seconds": sides,
        "step_seconds": seconds,
        "bound_by": bound,
        "share_of_peak": flops / (seconds * chip.peak_flops) if seconds else None,
        "note": "estimate: nothing was run",
    }
