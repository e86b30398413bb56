"""Floor 1: the textbook. Pure functions of arrays; imports `core` only."""
