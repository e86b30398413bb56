"""Floor 5: state, step, loop, optimizer, averages, checkpoints, sharding. Knows no family."""
