"""Floor 0: array types, the contract, random streams, tree helpers, errors."""
