"""Generators and critics of adversarial networks."""
