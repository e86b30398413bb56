"""Floor 0: devices and processes (topology, compilation, stopping, agreement, cost)."""
