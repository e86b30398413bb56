"""Floor 3: one file per model family."""
