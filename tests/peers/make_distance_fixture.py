"""Writes what pytorch-fid, torch-fidelity and prdc say of stored features, for tests/math.

Not part of the suite; needs those packages (written with 0.3.0, 0.4.0 and 0.2):

    python tests/peers/make_distance_fixture.py tests/math/fixtures/distances_torch.npz
"""

import sys
from pathlib import Path

import mpmath
import numpy as np
import torch
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

DIMENSIONS = 24
FEW = 20  # fewer than dimensions


def features(random, count, mean, scale):
    """Skewed features of a decaying spectrum, float32 [count, DIMENSIONS]."""
    mixing = random.normal(size=(DIMENSIONS, DIMENSIONS)) * 0.8 ** np.arange(DIMENSIONS)
    x = random.gamma(2.0, size=(count, DIMENSIONS)) @ mixing.T
    return (scale * x + mean).astype(np.float32)


def frechet(one, other):
    """d^2 as pytorch-fid and torch-fidelity compute it from float64 features."""
    one, other = (torch.from_numpy(x.astype(np.float64)) for x in (one, other))
    statistics = [fid_features_to_statistics(x) for x in (one, other)]
    by_fidelity = fid_statistics_to_metric(*statistics, verbose=False)
    arrays = [each[part] for each in statistics for part in ("mu", "sigma")]
    return {
        "pytorch_fid": calculate_frechet_distance(*arrays),
        "torch_fidelity": by_fidelity["frechet_inception_distance"],
    }


def exact(one, other):
    """d^2 with 60 digits. Where covariances are singular, the others take roots of rounding."""
    with mpmath.workdps(60):
        sets = [mpmath.matrix(x.astype(np.float64).tolist()) for x in (one, other)]
        means = [sum((x[i, :] for i in range(x.rows)), mpmath.zeros(1, x.cols)) / x.rows
                 for x in sets]  # fmt: skip
        covariances = []
        for x, mean in zip(sets, means, strict=True):
            centred = mpmath.matrix([list(x[i, :] - mean) for i in range(x.rows)])
            covariances.append(centred.T * centred / (x.rows - 1))
        values, basis = mpmath.eigsy(covariances[0])
        root = basis * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * basis.T
        product = mpmath.eigsy(root * covariances[1] * root, eigvals_only=True)
        cross = sum(mpmath.sqrt(max(v, 0)) for v in product)
        traces = sum(c[i, i] for c in covariances for i in range(c.rows))
        difference = means[0] - means[1]
        return float((difference * difference.T)[0] + traces - 2 * cross)


def main(path):
    random = np.random.RandomState(0)
    one = features(random, 300, 0.0, 1.0)
    # The same mixture of distributions in part, so that no share is 0 or 1.
    other = np.concatenate([one[:90] + random.normal(0, 0.3, (90, DIMENSIONS)), one[90:160] + 4])
    other = other.astype(np.float32)
    logits = random.normal(0, 3, (250, 12)).astype(np.float32)
    saved = dict(one=one, other=other, logits=logits)
    for case, pair in {"many": (one, other), "few": (one[:FEW], other[:FEW])}.items():
        saved |= {f"frechet_{case}_{peer}": value for peer, value in frechet(*pair).items()}
        saved[f"frechet_{case}_exact"] = exact(*pair)
    doubles = [torch.from_numpy(x.astype(np.float64)) for x in (one, other)]
    kid = kid_features_to_metric(*doubles, kid_subsets=20, kid_subset_size=100, verbose=False)
    saved["kid"] = list(kid.values())
    # torch-fidelity expects the generated features first.
    shares = prc_features_to_metric(*reversed(doubles), prc_neighborhood=3, verbose=False)
    saved["precision_recall"] = [shares["precision"], shares["recall"]]
    balls = compute_prdc(one.astype(np.float64), other.astype(np.float64), nearest_k=5)
    saved["density_coverage"] = [balls["density"], balls["coverage"]]
    saved["inception_score"] = list(isc_features_to_metric(torch.from_numpy(logits)).values())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **saved)
    print({name: value for name, value in saved.items() if np.ndim(value) < 2})


if __name__ == "__main__":
    main(sys.argv[1])
