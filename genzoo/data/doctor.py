"""What the cache holds, for `--mode=doctor`: names and places, nothing is opened or fetched."""

from genzoo.data.cifar import PUBLISHED as CIFAR10
from genzoo.data.idx import FASHION_MNIST, MNIST


def cached() -> dict[str, str]:
    """Name of each published data set that is complete in the cache -> its folder."""
    return {
        published.name: str(published.folder)
        for published in (CIFAR10, MNIST, FASHION_MNIST)
        if published.is_cached
    }
