"""Models made of models: a model in the latent space of another."""
