"""KID against sums over all pairs, torch-fidelity, and the spread of repeated measurements."""

import numpy as np
import pytest
from test_frechet import FIXTURE

from genzoo.math.kernel_distance import kernel, kernel_distance


def brute_force(x, y):
    """Equation (2) by loops over pairs."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    m = len(x)
    own = sum(
        k(x[i], x[j]) + k(y[i], y[j]) for i in range(m) for j in range(m) if i != j
    ) / (m * (m - 1))  # fmt: skip
    return own - 2 * sum(k(a, b) for a in x for b in y) / m**2


def features(seed, count, shift=0.0, dimensions=4):
    x = np.random.default_rng(seed).normal(size=(count, dimensions)) + shift
    return x.astype(np.float32)


def test_one_subset_of_all_is_the_sum_over_pairs():
    x, y = features(0, 12), features(1, 12, 0.5)
    actual = kernel_distance(x, y, subsets=1, size=12)
    expected = brute_force(x.astype(float), y.astype(float))
    np.testing.assert_allclose(actual.value, expected, rtol=1e-12)
    assert actual.deviation == 0 and actual.error > 0


def test_it_is_unbiased_however_small_the_subsets():
    # For x from N(0, 1) and y from N(s, 1) in one dimension, E k(x, y) = E (x y + 1)^3
    # = 1 + 3 E xy + 3 E x^2 E y^2 + E x^3 E y^3, with the moments of a Gaussian.
    shift = 0.7
    first, second, third = (
        np.array([0, shift]), np.array([1, 1 + shift**2]), np.array([0, 3 * shift + shift**3])
    )  # fmt: skip

    def expected(i, j):
        return 1 + 3 * (first[i] * first[j] + second[i] * second[j]) + third[i] * third[j]

    exact = expected(0, 0) + expected(1, 1) - 2 * expected(0, 1)
    x, y = features(2, 8000, dimensions=1), features(3, 8000, shift, dimensions=1)
    actual = kernel_distance(x, y, subsets=1000, size=10)
    assert abs(actual.value - exact) < 3 * actual.error
    assert actual.error < 0.1 * exact
    same = kernel_distance(x[:4000], y[:4000] - 0.7, subsets=1000, size=10)
    assert abs(same.value) < 3 * same.error


def test_the_error_is_the_spread_of_repeated_measurements():
    values, errors = [], []
    for repeat in range(150):
        x, y = features(2 * repeat + 100, 60), features(2 * repeat + 101, 120, 0.6)
        each = kernel_distance(x, y, subsets=10, size=40)
        values.append(each.value)
        errors.append(each.error)
    # The deviation of 150 values is known to 6 per cent; (3) leaves out the second order.
    np.testing.assert_allclose(np.mean(errors), np.std(values), rtol=0.25)


def test_subsets_follow_from_the_seed():
    x, y = features(4, 50), features(5, 50)
    settings = dict(subsets=3, size=20)
    assert kernel_distance(x, y, **settings) == kernel_distance(x, y, **settings)
    assert kernel_distance(x, y, **settings) != kernel_distance(x, y, seed=1, **settings)


def test_the_kernel_is_cubic_with_gamma_one_over_the_dimensions():
    x = np.array([[1.0, 2.0], [0.0, 1.0]])
    np.testing.assert_allclose(kernel(x, x), [[3.5**3, 2**3], [2**3, 1.5**3]])


@pytest.mark.parametrize("size", [1, 13])
def test_too_few_features_are_refused(size):
    with pytest.raises(ValueError, match="subsets of"):
        kernel_distance(features(0, 20), features(0, 12), size=size)
    with pytest.raises(ValueError, match="dimensions"):
        kernel_distance(features(0, 20), features(0, 20, dimensions=3), size=10)


def test_it_is_that_of_torch_fidelity():
    saved = np.load(FIXTURE)
    actual = kernel_distance(saved["one"], saved["other"], subsets=20, size=100)
    np.testing.assert_allclose([actual.value, actual.deviation], saved["kid"], rtol=1e-6)
