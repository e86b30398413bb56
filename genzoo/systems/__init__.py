"""Models made of models: in the latent space of another, or controlled by a branch."""
