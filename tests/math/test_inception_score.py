"""The Inception score against closed forms and torch-fidelity."""

import numpy as np
import pytest
from test_frechet import FIXTURE

from genzoo.math.inception_score import inception_score

CERTAIN = 1e4 * np.eye(7)


def test_certain_and_balanced_classes_give_their_number():
    logits = np.tile(CERTAIN, (20, 1))
    actual = inception_score(logits, splits=10, seed=None)
    np.testing.assert_allclose(actual, (7, 0), atol=1e-12)


def test_one_class_or_no_opinion_gives_one():
    for logits in (np.tile(CERTAIN[:1], (20, 1)), np.full((20, 7), -1e5)):
        np.testing.assert_allclose(inception_score(logits, splits=2), (1, 0), atol=1e-12)


def test_it_is_the_exponential_of_the_mutual_information():
    # Two classes, each sample sure to 0.8: log 2 minus the entropy of (0.8, 0.2).
    logits = np.log([[0.8, 0.2], [0.2, 0.8]] * 6)
    information = np.log(2) + 0.8 * np.log(0.8) + 0.2 * np.log(0.2)
    actual = inception_score(logits, splits=3, seed=None)
    np.testing.assert_allclose(actual, (np.exp(information), 0), atol=1e-12)


def test_the_order_of_the_samples_matters_only_without_a_seed():
    logits = np.repeat(CERTAIN, 20, 0)  # ordered by class
    assert inception_score(logits, splits=7, seed=None).value == pytest.approx(1)
    assert inception_score(logits, splits=7).value > 4
    with pytest.raises(ValueError, match="parts of 140"):
        inception_score(logits, splits=141)


def test_it_is_that_of_torch_fidelity():
    saved = np.load(FIXTURE)
    actual = inception_score(saved["logits"])
    np.testing.assert_allclose(actual, saved["inception_score"], rtol=1e-6)
