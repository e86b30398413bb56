"""The contents of the cache for `--mode=doctor`: names and folders; opens and fetches nothing."""

from genzoo.data.cifar import PUBLISHED as CIFAR10
from genzoo.data.emoji import PUBLISHED as EMOJI
from genzoo.data.idx import FASHION_MNIST, MNIST


def cached() -> dict[str, str]:
    """The folder of each published data set that is complete in the cache, by name."""
    return {
        published.name: str(published.folder)
        for published in (CIFAR10, MNIST, FASHION_MNIST, EMOJI)
        if published.is_cached
    }
