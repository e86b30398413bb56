"""The Fréchet distance against closed forms, SciPy's matrix root, and torch-fidelity."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

from genzoo.math.frechet import Frechet, Gaussian, frechet
from genzoo.math.pca import Moments

FIXTURE = Path(__file__).parent / "fixtures" / "distances_torch.npz"


def gaussian(x, batch=37):
    total = Moments.none(x.shape[1])
    for start in range(0, len(x), batch):
        total = total.with_batch(x[start : start + batch])
    return Gaussian.of(total)


def covariance(seed, dimensions=6):
    mixing = np.random.default_rng(seed).normal(size=(dimensions, dimensions))
    return mixing @ mixing.T


def test_the_covariance_is_the_unbiased_one():
    x = np.random.default_rng(0).normal(size=(100, 4)) + 50
    summary = gaussian(x)
    np.testing.assert_allclose(summary.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(summary.covariance, np.cov(x.T), rtol=1e-11)
    assert summary.count == 100
    with pytest.raises(ValueError, match="two features"):
        gaussian(x[:1])


def test_distance_of_gaussians_whose_covariances_commute():
    # With S_i = U diag(s_i^2) U^T it is |s_1 - s_2|^2.
    basis = np.linalg.qr(covariance(1))[0]
    deviations = np.random.default_rng(2).uniform(0.1, 3, size=(2, 6))
    means = np.random.default_rng(3).normal(size=(2, 6))
    one, other = (
        Gaussian(mean, basis * deviation**2 @ basis.T)
        for mean, deviation in zip(means, deviations, strict=True)
    )
    actual = frechet(one, other)
    np.testing.assert_allclose(actual.means, np.square(means[0] - means[1]).sum())
    expected = np.square(deviations[0] - deviations[1]).sum()
    np.testing.assert_allclose(actual.covariances, expected, rtol=1e-12)
    assert actual.distance == actual.means + actual.covariances and not actual.singular


def test_distance_of_other_gaussians_is_scipys():
    one, other = covariance(4), covariance(5)
    expected = np.trace(one + other - 2 * sqrtm(one @ other).real)
    zero = np.zeros(6)
    actual = frechet(Gaussian(zero, one), Gaussian(zero, other))
    np.testing.assert_allclose(actual.distance, expected, rtol=1e-10)
    np.testing.assert_allclose(
        frechet(Gaussian(zero, other), Gaussian(zero, one)).distance, actual.distance, rtol=1e-12
    )


def test_distance_from_itself_is_zero():
    x = Gaussian(np.ones(6), covariance(6))
    assert 0 <= frechet(x, x).distance < 1e-12 * np.trace(x.covariance)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_singular_covariances_have_an_exact_distance_and_are_told(rank):
    # In orthogonal subspaces the cross term is 0; in one subspace it is that of the subspace.
    basis = np.linalg.qr(covariance(7))[0]
    inside, outside = basis[:, :rank], basis[:, 3:]
    one, other = covariance(8, rank), covariance(9, rank)
    flat = [Gaussian(np.zeros(6), inside @ each @ inside.T) for each in (one, other)]
    expected = np.trace(one + other - 2 * sqrtm(one @ other).real) if rank else 0.0
    np.testing.assert_allclose(frechet(*flat).distance, expected, rtol=1e-9, atol=1e-12)
    away = Gaussian(np.zeros(6), outside @ outside.T)
    np.testing.assert_allclose(frechet(flat[0], away).distance, np.trace(one) + 3, rtol=1e-12)
    assert frechet(*flat).singular and frechet(flat[0], away).singular


def test_no_more_features_than_dimensions_are_told():
    x = np.random.default_rng(10).normal(size=(9, 6))
    assert frechet(gaussian(x[:6]), gaussian(x)).singular
    assert not frechet(gaussian(x[:7]), gaussian(x)).singular
    # Statistics of others do not say how many they are from, but their rank does.
    assert frechet(gaussian(x[:6])._replace(count=0), gaussian(x)).singular


def test_unlike_or_infinite_statistics_are_refused():
    one = Gaussian(np.zeros(6), covariance(0))
    with pytest.raises(ValueError, match="6 and of 5"):
        frechet(one, Gaussian(np.zeros(5), covariance(0, 5)))
    for wrong in (
        one._replace(mean=np.full(6, np.nan)),
        one._replace(covariance=np.full((6, 6), np.inf)),
    ):
        with pytest.raises(ValueError, match="finite"):
            frechet(one, wrong)


@pytest.mark.parametrize("case", ["many", "few"])
def test_distance_is_that_of_pytorch_fid_and_torch_fidelity(case):
    saved = np.load(FIXTURE)
    one, other = saved["one"], saved["other"]
    if case == "few":  # fewer than dimensions
        one, other = one[:20], other[:20]
    actual = frechet(gaussian(one), gaussian(other))
    assert isinstance(actual, Frechet) and actual.singular == (case == "few")
    np.testing.assert_allclose(actual.distance, saved[f"frechet_{case}_exact"], rtol=1e-9)
    # Where covariances are singular the others add roots of rounding errors.
    for peer in ("pytorch_fid", "torch_fidelity"):
        rtol = 1e-6 if case == "many" else 1e-5
        np.testing.assert_allclose(actual.distance, saved[f"frechet_{case}_{peer}"], rtol=rtol)
