"""Floor 4: models made of models."""
