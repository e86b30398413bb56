"""TF-IDF against weights computed by hand."""

import numpy as np

from genzoo.evaluate.neighbours import cosine
from genzoo.evaluate.tfidf import TfIdf

# Words in rows: in 1, 2, 4 and none of the four documents.
COUNTS = np.array([[3, 1, 1, 0], [0, 2, 1, 0], [0, 0, 5, 0], [0, 0, 1, 0]], np.uint16)


def test_the_weights_are_those_by_hand():
    weights = TfIdf.of(iter([COUNTS[:3], COUNTS[3:]]))
    np.testing.assert_allclose(weights.idf, [np.log(4), np.log(2), 0, 0])
    # log 4 = 2 log 2, so the first document is (6, 1, 0, 0) log 2 before scaling.
    expected = [[6 / 37**0.5, 1 / 37**0.5, 0, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]
    np.testing.assert_allclose(weights(COUNTS), expected)
    # An unknown word of a query weighs nothing.
    query = weights(np.array([[0, 7, 0, 9]]))
    np.testing.assert_allclose(query, [[0, 1, 0, 0]])
    distances = cosine(query, weights(COUNTS))
    np.testing.assert_allclose(distances, [[1 - 1 / 37**0.5, 0, 1, 1]], atol=1e-12)
