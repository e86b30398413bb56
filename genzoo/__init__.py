"""genzoo: a JAX/Flax zoo of generative models, each formula checked against an exact answer."""

__version__ = "0.1.0"
