"""Transformers over sequences of tokens."""
