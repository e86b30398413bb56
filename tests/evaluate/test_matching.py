"""How embeddings of images and texts find each other, counted by hand."""

import numpy as np
import pytest

from genzoo.evaluate import matching


def test_distinct_texts_keep_their_order_and_their_images():
    ids = np.array([[3, 0], [1, 2], [3, 0], [1, 0]])
    first, own = matching.distinct(ids)
    np.testing.assert_array_equal(first, [0, 1, 3])
    np.testing.assert_array_equal(own, [0, 1, 0, 2])


def test_ranks_counted_by_hand():
    # Three texts along the axes; images 0 and 1 belong to the first text.
    texts = np.eye(3, dtype=np.float32)
    images = np.float32([[0.9, 0.1, 0], [0.1, 0.9, 0.2], [0.3, 0.8, 0.1], [0.5, 0.6, 0.4]])
    own = np.array([0, 0, 1, 2])
    scores = matching.scores(images, texts, own)
    # Images 0 and 2 have their text nearest; image 3 has it last.
    assert scores["text_of_image_first"] == 0.5
    assert scores["text_of_image_first_5"] == 1.0
    # Text 0: image 0 leads. Text 1: image 1, of another text, leads. Text 2: image 3 leads.
    assert scores["image_of_text_first"] == pytest.approx(2 / 3)
    assert "text_of_image_among_8" not in scores


def test_equal_embeddings_give_about_chance():
    same = np.ones((40, 3), np.float32) / np.sqrt(3)
    scores = matching.scores(same, same[:20], np.arange(40) % 20)
    assert scores["text_of_image_first"] == 0 and scores["text_of_image_among_8"] == 0
    perfect = np.eye(20, dtype=np.float32)
    scores = matching.scores(perfect, perfect, np.arange(20))
    assert set(scores.values()) == {1.0}


def test_random_embeddings_give_chance():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(4000, 8)), rng.normal(size=(50, 8))
    scores = matching.scores(images, texts, rng.integers(0, 50, 4000))
    for key, chance in (("text_of_image_among_8", 1 / 8), ("text_of_image_first_5", 0.1)):
        assert abs(scores[key] - chance) < 0.03
