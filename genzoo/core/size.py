"""The size of a model, from its settings alone, before anything is built or traced."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """Bounds on the size of a network or a family.

    params: at least as many numbers as its params have; exact for most networks. stats: the same
    for its statistics. layer: at most the bytes of its largest array for one example. No compiler
    can do without that array, so that a program that cannot hold it cannot run.
    """

    params: int
    layer: int = 0
    stats: int = 0


def nothing() -> Size:
    """The size of no network."""
    return Size(params=0)
