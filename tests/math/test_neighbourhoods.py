"""Precision, recall, density and coverage against loops over pairs, torch-fidelity and prdc."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from test_frechet import FIXTURE

from genzoo.math import neighbourhoods as module
from genzoo.math.neighbourhoods import neighbourhoods, squared_radii


def features(seed, count, shift=0.0, dimensions=5):
    x = np.random.default_rng(seed).normal(size=(count, dimensions)) + shift
    return x.astype(np.float32)


def brute_force(real, fake, precision_k, density_k):
    """Equations (1) and (2) from the table of all distances."""

    def radii(x, k):
        return np.sort(cdist(x, x), 1)[:, k]

    across = cdist(real, fake)
    dense = across <= radii(real, density_k)[:, None]
    return (
        np.mean((across <= radii(real, precision_k)[:, None]).any(0)),
        np.mean((across <= radii(fake, precision_k)).any(1)),
        dense.sum() / (density_k * len(fake)),
        np.mean(dense.any(1)),
    )


@pytest.mark.parametrize("block", [7, 2048])
@pytest.mark.parametrize("ks", [(3, 5), (4, 2)])
def test_they_are_those_of_the_table_of_all_distances(monkeypatch, block, ks):
    monkeypatch.setattr(module, "_BLOCK", block)
    real, fake = features(0, 60), features(1, 45, 0.8)
    actual = neighbourhoods(real, fake, precision_k=ks[0], density_k=ks[1])
    np.testing.assert_allclose(actual, brute_force(real, fake, *ks), rtol=1e-12)
    assert len({*actual}) == 4 and min(actual) > 0  # the case tells them apart


def test_a_set_compared_with_itself():
    x = features(2, 80) + 1e4  # far from 0, where a distance of 0 is rounded
    actual = neighbourhoods(x, x, precision_k=3, density_k=5)
    # Every ball holds its centre and k others.
    assert actual == (1.0, 1.0, 6 / 5, 1.0)


def test_copies_lie_in_balls_of_radius_zero():
    point = np.full((6, 3), 1e3, np.float32) * np.array([1, 2, 3], np.float32)
    real = np.concatenate([point, features(3, 6, dimensions=3)])
    assert squared_radii(real, (5,))[0][:6].tolist() == [0.0] * 6
    actual = neighbourhoods(real, np.concatenate([point[:3], point[:3] + 1]), precision_k=3)
    assert actual.precision == 0.5  # the copies, and not what lies next to them


def test_distributions_far_apart_share_nothing():
    actual = neighbourhoods(features(4, 50), features(5, 50, 100.0))
    assert actual == (0.0, 0.0, 0.0, 0.0)


def test_one_distribution_has_density_one_and_the_published_coverage():
    # Naeem et al. 2020: the expected coverage of N real and M generated is
    # 1 - (N-1)...(N-k) / ((N+M-1)...(N+M-k)), whatever the distribution.
    n, k = 2000, 5
    actual = neighbourhoods(features(6, n), features(7, n), density_k=k)
    steps = np.arange(1, k + 1)
    expected = 1 - np.prod((n - steps) / (2 * n - steps))
    assert abs(actual.coverage - expected) < 0.02
    assert abs(actual.density - 1) < 0.04


def test_too_few_features_are_refused():
    with pytest.raises(ValueError, match="no neighbour number 5"):
        neighbourhoods(features(0, 5), features(0, 20))
    with pytest.raises(ValueError, match="dimensions"):
        neighbourhoods(features(0, 9), features(0, 9, dimensions=3))


def test_they_are_those_of_torch_fidelity_and_prdc():
    saved = np.load(FIXTURE)
    actual = neighbourhoods(saved["one"], saved["other"])
    np.testing.assert_allclose(actual[:2], saved["precision_recall"], rtol=1e-6)
    np.testing.assert_allclose(actual[2:], saved["density_coverage"], rtol=1e-6)
    assert min(actual) > 0.01 and max(actual) < 0.99
