"""Floor 1: data sets, the fields of their records, their order and batches. Imports `core` only."""
