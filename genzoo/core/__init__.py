"""Floor 0: array names, the contract, random streams, tree helpers, the user's errors."""
