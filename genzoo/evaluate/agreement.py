"""How well the outlines of samples agree with those of the images from which their hints were made.

    precision = the share of a sample's outline within a pixel of the hint's, recall = the converse,
    F1 = 2 precision recall / (precision + recall)                                              (1)

Two outlines agree at a pixel if one of them passes through it and the other through it or one of
its eight neighbours, as in benchmarks of contour detection (Martin et al. 2004). All pixels of all
images are counted together.
"""

from dataclasses import dataclass, field

import numpy as np

from genzoo.data.derived import outline
from genzoo.data.transforms import to_float


def _near(lines: np.ndarray) -> np.ndarray:
    """Whether a line passes through a pixel or one of its neighbours: bool [N, H, W]."""
    p = np.pad(lines, ((0, 0), (1, 1), (1, 1)))
    height, width = lines.shape[1:]
    return np.any([p[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], 0)


@dataclass
class Agreement:
    """Equation (1) of samples that come in batches."""

    _counts: np.ndarray = field(default_factory=lambda: np.zeros(4, np.int64))
    _images: int = 0

    def add(self, samples: np.ndarray, originals: np.ndarray) -> None:
        """Adds samples with their originals, uint8 [N, H, W, C] each."""
        drawn, hint = (np.asarray(outline(to_float(x)))[..., 0] > 0 for x in (samples, originals))
        found, given = drawn & _near(hint), hint & _near(drawn)
        self._counts += [lines.sum() for lines in (found, drawn, given, hint)]
        self._images += len(samples)

    def report(self) -> dict[str, float]:
        """Precision, recall, F1 and the number of samples. A share of no pixels is 0."""
        found, drawn, given, hint = map(int, self._counts)
        precision, recall = found / max(drawn, 1), given / max(hint, 1)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        shares = {"precision": precision, "recall": recall, "f1": f1}
        return {k: round(v, 4) for k, v in shares.items()} | {"images": self._images}
