"""Floor 1: sources of images, their order, and the batches made of them. Imports `core` only."""
