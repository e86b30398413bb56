"""How well embeddings of images and of texts find each other.

N images with their texts, of which U are different; all embeddings are unit vectors and compared by
their scalar product. A text may belong to several images.
"""

from collections.abc import Mapping

import numpy as np

FEW = 8
"""The number of texts in the easier of the two zero-shot tests."""
_FIRST = 5


def distinct(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the row of the first example of each distinct text [U], the text of each example [N]) for
    token ids [N, L]."""
    _, first, own = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the examples
    return first[order], np.argsort(order)[own.reshape(-1)]


def nearest_texts(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The nearest of texts [U, D] for each image [N, D]: int [N]."""
    return (images @ texts.T).argmax(1)


def scores(
    images: np.ndarray, texts: np.ndarray, own: np.ndarray, seed: int = 0
) -> Mapping[str, float]:
    """Shares of images that find their text, and of texts that find one of their images.

    images: [N, D]. texts: the distinct ones, [U, D]. own: the text of each image, int [N]. Among
    few: of its own text and seven others drawn at random. An embedding that is exactly as near as
    the right one counts as half nearer, so that equal embeddings give chance.
    """
    products = images.astype(np.float64) @ texts.T.astype(np.float64)  # [N, U]
    count, distinct_texts = products.shape
    right = products[np.arange(count), own][:, None]
    mine = own[:, None] == np.arange(distinct_texts)
    rank = _ahead(products, right, ~mine)
    # The nearest of a text's own images against all images of other texts.
    best = np.where(mine, products, -np.inf).max(0)[None]
    text_rank = _ahead(products, best, ~mine, axis=0)
    result = {
        "text_of_image_first": _share(rank, 1),
        f"text_of_image_first_{_FIRST}": _share(rank, _FIRST),
        "image_of_text_first": _share(text_rank, 1),
        f"image_of_text_first_{_FIRST}": _share(text_rank, _FIRST),
    }
    if distinct_texts >= FEW:
        others = _others(own, distinct_texts, FEW - 1, seed)
        few = np.take_along_axis(products, others, 1)
        rank = _ahead(few, right, np.ones_like(few, bool))
        result[f"text_of_image_among_{FEW}"] = _share(rank, 1)
    return result


def _ahead(products: np.ndarray, right: np.ndarray, others: np.ndarray, axis: int = 1):
    """How many of the others are nearer than the right one; equal ones count half."""
    nearer = (products > right) + 0.5 * (products == right)
    return np.where(others, nearer, 0).sum(axis)


def _share(ahead: np.ndarray, first: int) -> float:
    """The share of right ones among the first; between two ranks the chance of the lower."""
    return float(np.clip(first - ahead, 0, 1).mean())


def _others(own: np.ndarray, texts: int, count: int, seed: int) -> np.ndarray:
    """For each image, different texts that are not its own, drawn at random: int [N, count]."""
    random = np.random.default_rng(seed)
    drawn = np.stack([random.choice(texts - 1, count, replace=False) for _ in own])
    return drawn + (drawn >= own[:, None])
