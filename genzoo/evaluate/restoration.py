"""How well samples restore the images from which their conditions were made, such as small copies.

    PSNR = 10 log10(255^2 / MSE),    MSE = the mean squared error of all values, in levels    (1)

The restoration with the largest PSNR is about the mean of all images that are compatible with the
condition, which is blurred. A sample of a perfect model is one of these images, and its mean
squared error is twice that of their mean, so that its PSNR is 3 dB lower. For the mean of k samples
the factor is 1 + 1/k.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from genzoo.data.transforms import to_uint8
from genzoo.evaluate import similarity
from genzoo.evaluate.figures import Row, save_rows

_ROUNDING = 1 / 12  # the mean squared error of rounding to levels
_SHOWN = 3  # samples of each image in a picture


def psnr(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """The PSNR (1) of each image in decibels: float64 [N].

    images, originals: [N, H, W, C] in levels from 0 to 255, uint8 or means of several images. The
    error is at least that of rounding, so that equal images have 58.9 dB and not infinity.
    """
    difference = images.astype(np.float64) - originals.astype(np.float64)
    error = np.square(difference).reshape(len(images), -1).mean(1)
    return similarity.psnr(error, value_range=255, least=_ROUNDING)


def bicubic(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images [n, h, w, C] in [-1, 1], enlarged to (height, width) by Keys' cubic kernel (1981):
    uint8 [n, height, width, C]."""
    enlarged = [
        [
            np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC))
            for plane in np.moveaxis(np.asarray(image, np.float32), -1, 0)
        ]
        for image in images
    ]
    return to_uint8(np.moveaxis(np.array(enlarged), 1, -1))


@dataclass
class Restoration:
    """The PSNR of samples that come in batches, with the k samples of an original in a row.

    repeat: k. baseline: originals, uint8 [n, H, W, C] -> another restoration from their conditions,
    of the same form; None for none. name: that of the baseline.
    """

    repeat: int = 1
    baseline: Callable[[np.ndarray], np.ndarray] | None = None
    name: str = ""
    _each: list[float] = field(default_factory=list)
    _means: list[float] = field(default_factory=list)
    _baseline: list[float] = field(default_factory=list)
    _pending: list[np.ndarray] = field(default_factory=list)

    def add(self, samples: np.ndarray, originals: np.ndarray) -> None:
        """Adds samples with their originals, uint8 [N, H, W, C] each."""
        self._each += psnr(samples, originals).tolist()
        for sample, original in zip(samples, originals, strict=True):
            self._pending.append(sample)
            if len(self._pending) == self.repeat:
                mean = np.mean(self._pending, 0, np.float64)
                self._means += psnr(mean[None], original[None]).tolist()
                self._pending.clear()
                if self.baseline is not None:
                    restored = self.baseline(original[None])
                    self._baseline += psnr(restored, original[None]).tolist()

    def report(self) -> dict[str, float]:
        """The mean PSNR in decibels of single samples, of the means of k samples if k > 1, and of
        the baseline, and the number of originals. Means of fewer than k samples are left out."""
        values = {"samples": self._each}
        if self.repeat > 1:
            values[f"mean_of_{self.repeat}"] = self._means
        if self.baseline is not None:
            values[self.name] = self._baseline
        means = {name: round(float(np.mean(v)), 3) for name, v in values.items() if v}
        return means | {"images": -(-len(self._each) // self.repeat)}


def save_restoration(
    path: Path,
    given: Mapping[str, np.ndarray],
    baselines: Mapping[str, np.ndarray],
    samples: np.ndarray,
    originals: np.ndarray | None,
) -> None:
    """Saves a page with a column for each of N images: the conditions, baselines, samples, their
    mean and the original. With originals, the label of a row gives its PSNR.

    given: condition -> values [N, h, w, C] in [-1, 1], shown at the size of the samples. baselines:
    name -> uint8 [N, H, W, C]. samples: uint8 [k, N, H, W, C], of which three are shown.
    """
    size = samples.shape[2:4]
    rows = [Row(images=_shown(value, size), label=name) for name, value in given.items()]
    restored = {**baselines, **{f"sample {i + 1}": s for i, s in enumerate(samples[:_SHOWN])}}
    if len(samples) > 1:
        restored[f"mean of {len(samples)}"] = samples.mean(0)
    for name, images in restored.items():
        quality = "" if originals is None else f"\n{psnr(images, originals).mean():.1f} dB"
        levels = np.rint(images).astype(np.uint8)
        rows.append(Row(images=levels, label=name + quality))
    if originals is not None:
        rows.append(Row(images=originals, label="original"))
    save_rows(path, rows)


def _shown(value: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A condition as uint8 [N, *size, 1 or 3], each pixel enlarged by copying."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, value.shape[1:3], strict=True))
    channels = 3 if value.shape[-1] >= 3 else 1
    return to_uint8(value[:, rows][:, :, columns, :channels])
