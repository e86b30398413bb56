"""Super-resolution from 14 x 14 to 28 x 28 pixels by flow matching, on embedded Fashion-MNIST.

    python -m genzoo.main --config=configs/sr_fashion.py:laptop --workdir=runs/sr
    python -m genzoo.main --workdir=runs/sr --mode=sample --config.sample.repeat=8 \\
        --config.sample.count=512 --config.sample.pictures=restoration
    python -m genzoo.main --workdir=runs/sr --mode=sample --config.sample.conditions.low=FILE

The small copy of an image is concatenated to the network's input (Saharia et al. 2021, Image
super-resolution via iterative refinement). FILE is an image of 14 x 14 pixels, or one of at least
28 x 28, of which the small copy is made. Without it, `--mode=sample` restores images of the test
split and reports the PSNR of single samples, of the means of all samples of an image, and of
bicubic enlargement. A sample is one of the images that the small copy allows, so that its PSNR is
lower than that of their mean, by up to 3 dB.

Variants:
    :laptop  Cost: fourteen minutes of one busy CPU core. Result: 22.6 dB for single samples and
             24.8 dB for the mean of eight, where bicubic enlargement has 19.2 dB.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", dir="", flip=True),
            family=dict(name="flow_matching", path="straight", prediction="velocity"),
            conditions=dict(low=dict(of="x", transform="downsample2", way="concat")),
            network=dict(
                name="unet",
                width=96,
                multipliers=(1, 2, 2),
                blocks=2,
                attention=(14,),
                heads=4,
                dropout=0.1,
                patch=1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=3e-4, warmup=500, decay="cosine", clip=1.0),
            train=dict(
                steps=60_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.9995)),
                picture_first=500,
                picture_count=64,
            ),
            sample=dict(weights="ema", method="heun", grid="trailing", steps=20, count=64),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        network=dict(width=16, multipliers=(1,), blocks=1, attention=(), heads=1, patch=4,
                     norm_groups=4, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
    # The network of ddpm_fashion:laptop, whose comment says why it has no patch entry.
    "laptop": dict(
        network=dict(width=16, multipliers=(1, 3, 6), blocks=1, attention=(), heads=1, dropout=0.0,
                     norm_groups=4, embedding_width=64, dtype="float32"),
        optimizer=dict(learning_rate=1e-3, warmup=100, b2=0.99),
        train=dict(steps=1800, batch_size=32, log_every=50, save_every=600, picture_first=180,
                   averages=dict(ema=dict(decay=0.995))),
        sample=dict(method="dpmpp_2m", steps=20),
        eval=dict(count=100, tolerance=1e-3),
    ),
}
