"""Toys: points and waves follow their documented distributions, and are served like images."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm

from genzoo.core.errors import UserError
from genzoo.data import toys
from genzoo.data.batches import eval_batches, fits_in_memory, train_batches
from genzoo.data.fields import Points
from genzoo.data.source import Mixture, Spec

OPENERS = {"swissroll": toys.open_swissroll, "mixture": toys.open_mixture}
SEEDS = {
    ("swissroll", "train"): 0,
    ("swissroll", "test"): 1,
    ("mixture", "train"): 4,
    ("mixture", "test"): 5,
}
SETS = pytest.mark.parametrize("name", OPENERS)
CASES = pytest.mark.parametrize(
    "name, split", list(itertools.product(OPENERS, ("train", "test")))
)


def pcg64(seed, count):
    """PCG XSL-RR 128/64 (O'Neill 2014) written out, from the state that NumPy seeds."""
    state = np.random.PCG64(seed).state["state"]
    at, step = state["state"], state["inc"]
    words = []
    for _ in range(count):
        at = (at * 0x2360ED051FC65DA44385DF649FCCF645 + step) % 2**128
        folded, turn = (at >> 64) ^ (at & (2**64 - 1)), at >> 122
        words.append(((folded >> turn) | (folded << (64 - turn))) & (2**64 - 1))
    return words


@CASES
def test_splits_have_their_sizes_types_and_range(name, split):
    source = OPENERS[name](split)
    points = source.arrays["x"]
    assert source.name == name and len(source) == {"train": 50_000, "test": 10_000}[split]
    assert points.shape == (len(source), 2) and points.dtype == np.float32
    assert np.abs(points).max() < 2.4 and 0.9 < points.std() < 1.2
    assert fits_in_memory(source)
    again = OPENERS[name](split)
    assert again.identity() == source.identity()


@SETS
def test_no_point_lies_in_both_splits(name):
    both = np.concatenate([OPENERS[name](split).arrays["x"] for split in ("train", "test")])
    assert len(np.unique(both, axis=0)) == len(both)


@SETS
def test_an_unknown_split_is_refused(name):
    with pytest.raises(UserError, match="no split 'valid'"):
        OPENERS[name]("valid")


@CASES
def test_the_points_are_those_of_pcg64_written_out(name, split):
    seed = SEEDS[name, split]
    source = OPENERS[name](split)
    density = source.spec.density
    words = pcg64(seed, 60)
    for i in range(20):
        u, v, w = (((word >> 11) + 1) / 2**53 for word in words[3 * i : 3 * i + 3])
        k = next(k for k in range(400) if density.weights[: k + 1].sum() >= u)
        reach = density.deviations[k] * math.sqrt(-2 * math.log(v))
        expected = density.means[k] + reach * np.array(
            [math.cos(2 * math.pi * w), math.sin(2 * math.pi * w)]
        )
        np.testing.assert_array_equal(source.arrays["x"][i], expected.astype(np.float32))


@SETS
def test_the_last_bits_of_a_library_cannot_show(name):
    """Errors far above those of any library for log and cos do not change a rounded point."""
    for split in ("train", "test"):
        source = OPENERS[name](split)
        points, _ = toys.draw(source.spec.density, len(source), SEEDS[name, split])
        for off in (-4e-15, 4e-15):
            np.testing.assert_array_equal((points + off).astype(np.float32), source.arrays["x"])


def test_components_come_in_their_proportions():
    density = toys.MIXTURE_SPEC.density
    label = toys.open_mixture("train").arrays["label"]
    expected = density.weights * len(label)
    statistic = ((np.bincount(label, minlength=8) - expected) ** 2 / expected).sum()
    assert label.dtype == np.int32 and 0.001 < chi2.sf(statistic, df=7) < 0.999


def test_each_component_is_the_gaussian_that_it_says():
    density = toys.MIXTURE_SPEC.density
    arrays = toys.open_mixture("train").arrays
    scores = [
        kstest(inner, norm.cdf).pvalue
        for k in range(8)
        for inner in ((arrays["x"] - density.means[k]) / density.deviations[k])[
            arrays["label"] == k
        ].T
    ]
    assert min(scores) > 0.001  # sixteen tests
    inner = (arrays["x"] - density.means[arrays["label"]]) / density.deviations[
        arrays["label"], None
    ]
    assert abs(np.corrcoef(inner.T)[0, 1]) < 4 / math.sqrt(len(inner))


@CASES
def test_points_follow_their_density_along_every_direction(name, split):
    source = OPENERS[name](split)
    density = source.spec.density
    for angle in (0.0, 0.7, math.pi / 2, 2.5):
        direction = np.array([math.cos(angle), math.sin(angle)])
        along = source.arrays["x"][-10_000:] @ direction

        def cdf(x, centres=density.means @ direction):
            each = norm.cdf(x[:, None], centres, density.deviations)
            return each @ density.weights

        assert kstest(along, cdf).pvalue > 0.001


def test_the_ring_goes_round_by_the_names_of_its_classes():
    spec = toys.MIXTURE_SPEC
    centre = dict(zip(spec.classes, spec.density.means, strict=True))
    np.testing.assert_allclose(centre["east"], [1.5, 0], atol=1e-12)
    np.testing.assert_allclose(centre["north"], [0, 1.5], atol=1e-12)
    np.testing.assert_allclose(centre["south-west"], [-(1.125**0.5)] * 2, rtol=1e-12)
    assert len(set(spec.density.weights)) == 8 and len(set(spec.density.deviations)) == 2


def test_the_spiral_is_one_band_without_beads_and_its_arms_lie_apart():
    density = toys.SWISSROLL_SPEC.density

    def at(points):
        squared = np.square(points[:, None] - density.means).sum(-1)
        scaled = np.exp(-squared / (2 * 0.06**2)) / (2 * math.pi * 0.06**2)
        return scaled @ density.weights

    inner = slice(40, 360)  # away from the ends
    on, between = density.means, (density.means[1:] + density.means[:-1]) / 2
    np.testing.assert_allclose(at(between)[inner], at(on)[inner], rtol=0.02)
    radius = np.linalg.norm(density.means, axis=-1)
    steps = np.linalg.norm(np.diff(density.means, axis=0), axis=-1)
    np.testing.assert_allclose([radius[0], radius[-1]], [2 / 3, 2])
    assert steps.max() < 0.06 and steps.max() / steps.min() < 1.02
    # Half a turn is 4/9 in radius; between the arms there is almost nothing.
    gap = density.means[inner] * (1 + (4 / 9) / radius[inner, None])
    assert at(gap)[:200].max() < 1e-6 * at(on)[inner].min()


@SETS
def test_points_are_served_in_batches_like_images(name):
    source = OPENERS[name]("test")
    batches = train_batches(source, seed=3, batch_size=4000, start_step=1)
    stream = list(itertools.islice(batches, 5))
    batches.close()
    # Steps 1 to 5: the rest of the first epoch, the second, and part of the third.
    straight = train_batches(source, seed=3, batch_size=4000)
    epoch = np.concatenate([batch["x"] for batch in itertools.islice(straight, 5)])[:10_000]
    straight.close()
    assert all(b["x"].shape == (4000, 2) and b["x"].dtype == np.float32 for b in stream)
    np.testing.assert_array_equal(stream[0]["x"], epoch[4000:8000])
    np.testing.assert_array_equal(
        np.sort(epoch.view("f4,f4").ravel()), np.sort(source.arrays["x"].view("f4,f4").ravel())
    )
    last = list(eval_batches(source, batch_size=64, count=100))[-1]
    np.testing.assert_array_equal(last["x"][:36], source.arrays["x"][64:100])
    np.testing.assert_array_equal(last["x"][36:], source.arrays["x"][[99] * 28])
    assert last["mask"].sum() == 36 and ("label" in last) == (name == "mixture")


def test_a_mixture_has_one_weight_and_one_deviation_for_each_mean():
    ones = np.ones(2)
    Mixture(weights=ones / 2, means=np.zeros((2, 3)), deviations=ones)
    for wrong in (
        {"weights": ones},
        {"means": np.zeros((3, 3))},
        {"deviations": np.ones(3)},
        {"means": np.zeros(2)},
    ):
        right = {"weights": ones / 2, "means": np.zeros((2, 3)), "deviations": ones}
        with pytest.raises(ValueError, match="No mixture"):
            Mixture(**(right | wrong))


def test_specs_are_told_apart_and_may_be_keys():
    plane = [Spec(fields={"x": Points(shape=(2,))}) for _ in range(2)]
    assert len({toys.SWISSROLL_SPEC, toys.MIXTURE_SPEC, *plane}) == 3
    assert plane[0] == plane[1] != toys.SWISSROLL_SPEC


# --- waves ----------------------------------------------------------------------------------------

OVERTONES = ((1,), (1, 2), (1, 3))  # the harmonics of each class, of equal amplitude


@pytest.fixture(scope="module")
def waves():
    return {split: toys.open_waves(split) for split in ("train", "test")}


def test_waves_are_what_their_condition_says(waves):
    for source in waves.values():
        x = source.arrays["x"][:1500].astype(np.float64)
        for wave, label, frequency in zip(
            x, source.arrays["label"], source.arrays["frequency"][:, 0], strict=False
        ):
            # The channels are the parts of a complex wave. Least squares gives the amplitudes of
            # its harmonics, without a residual.
            h = np.array(OVERTONES[label])
            basis = np.exp(2j * np.pi * np.outer(np.arange(64), h) * float(frequency) / 64)
            found, *_ = np.linalg.lstsq(basis, wave[:, 0] + 1j * wave[:, 1], rcond=None)
            np.testing.assert_allclose(np.abs(found), len(h) ** -0.5, atol=1e-4)
            np.testing.assert_allclose((basis @ found).real, wave[:, 0], atol=2e-5)
            np.testing.assert_allclose((basis @ found).imag, wave[:, 1], atol=2e-5)
        pure = source.arrays["x"][source.arrays["label"] == 0]
        np.testing.assert_allclose(np.square(pure).sum(-1), 1, atol=1e-6)


def test_waves_are_drawn_evenly_and_independently(waves):
    arrays = waves["train"].arrays
    counts, frequency = np.bincount(arrays["label"]), arrays["frequency"][:, 0]
    assert chi2(2).sf(np.square(counts - 10_000 / 3).sum() / (10_000 / 3)) > 1e-3
    phase = np.angle(arrays["x"][:, 0] @ np.array([1, 1j]))[arrays["label"] == 0]
    assert kstest(phase, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3
    for k in range(3):
        assert kstest(frequency[arrays["label"] == k], "uniform", (1, 3)).pvalue > 1e-3
    near = np.abs(np.corrcoef(phase, frequency[arrays["label"] == 0])[0, 1])
    assert near < 4 / math.sqrt(len(phase))
    other = waves["test"].arrays
    assert len(other["label"]) == 2000
    assert not {wave.tobytes() for wave in other["x"]} & {wave.tobytes() for wave in arrays["x"]}


def test_the_covariance_of_waves_is_the_stated_one(waves):
    # Equation (4) at a fixed class and frequency, from all waves whose frequency is close.
    arrays = waves["train"].arrays
    near = np.abs(arrays["frequency"][:, 0] - 2) < 0.02
    for k, harmonics in enumerate(OVERTONES):
        x = arrays["x"][near & (arrays["label"] == k)].astype(np.float64)
        lag = np.arange(64)
        exact = sum(np.cos(2 * np.pi * h * 2 * lag / 64) for h in harmonics) / len(harmonics) / 2
        measured = np.einsum("nc,nlc->l", x[:, 0], x) / x.shape[0] / 2
        # |x_0 x_l| is at most 2, so the standard error is below sqrt(1 / n), and so is the bias.
        np.testing.assert_allclose(measured, exact, atol=4 / math.sqrt(len(x)))
