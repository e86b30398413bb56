"""How long a step must take at least: the roofline of Williams et al. 2009 with a third side.

    seconds = max(flops / peak, bytes accessed / memory bandwidth, bytes sent / network)     (1)

A count divided by a data sheet: nothing was run, and a real step takes longer, since no operation
reaches its peak and not all of them overlap.
"""

from genzoo.runtime.topology import Chip


def estimate(
    chip: Chip, *, flops: float, bytes_accessed: float | None, bytes_sent: float | None
) -> dict[str, object]:
    """The sides of (1) in seconds, the largest of them and the share of peak that it leaves, per
    device. bytes_accessed, bytes_sent: None where they are not known."""
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
