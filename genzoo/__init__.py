"""genzoo: a JAX/Flax zoo of generative models, each formula checked against an exact answer.

    import genzoo
    run = genzoo.open("runs/fashion")                            a trained run
    images = run.sample(16, seed=0, label="sneaker")             uint8 arrays
    run = genzoo.fit(genzoo.read_config("ddpm_fashion:laptop"), "runs/fashion")
"""

from typing import TYPE_CHECKING

from genzoo.core.version import VERSION

if TYPE_CHECKING:
    from genzoo.api import Run, fit, open, read_config

__version__ = VERSION
__all__ = ["Run", "__version__", "fit", "open", "read_config"]


def __getattr__(name: str) -> object:
    # Importing JAX takes a second, and the command line reports wrong flags before that.
    if name in __all__:
        from genzoo import api

        return getattr(api, name)
    raise AttributeError(f"module 'genzoo' has no attribute {name!r}")
