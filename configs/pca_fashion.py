"""PCA and probabilistic PCA on the embedded images of Fashion-MNIST, in closed form.

    python -m genzoo.main --config=configs/pca_fashion.py --workdir=runs/pca

Cost: six seconds on a CPU.
Result: 32 components of 784 numbers explain 0.826 of the variance of the 2,000 test images, PSNR
19.0; log-density 83.7 nats.

Variants:
    :smoke   four components, for the tests.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini"),
            family=dict(name="pca", components=32),
            train=dict(
                steps=1, batch_size=1000, averages=dict(), picture_first=0, picture_count=32
            ),
            sample=dict(count=64, batch_size=64),
            eval=dict(batch_size=500),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        family=dict(components=4),
        train=dict(picture_count=4),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20),
    ),
}
