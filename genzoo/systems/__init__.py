"""Models made of models: in the latent space of another, controlled by a branch, or in a chain."""
