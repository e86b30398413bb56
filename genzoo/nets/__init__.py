"""Floor 1: networks. The only package that imports Flax; everything above sees (init, apply)."""
