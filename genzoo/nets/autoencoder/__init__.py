"""Encoders and decoders of autoencoders."""
