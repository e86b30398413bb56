"""Floor 1: networks. Only this package imports Flax; the floors above see (init, apply)."""
