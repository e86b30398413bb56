"""DDPM at 256 pixels (LSUN, CelebA-HQ), the recipe of Ho et al. 2020, appendix B.

    python -m genzoo.data.prepare_tfds lsun/bedroom --data_dir=DIR
    python -m genzoo.main --config=configs/ddpm_lsun256.py --workdir=runs/lsun --config.data.dir=DIR

For a folder of images: --config.data.name=folder:PATH. The paper flips images at random on every
set but LSUN Bedroom: --config.data.flip=True for others. 113,673,219 parameters; remat is on to
save memory, and the batch can be split further with --config.train.accumulate. The full run has not
been made yet.
Cost: 2.4 million steps of batch 64, thirteen days on a TPU v3-8 at the published 2.2 steps a
second.
Published: FID 6.36 on LSUN Bedroom. (A network of 256 million parameters has 4.90 after 1.15
million steps.)

Variants:
    :smoke   20 steps of a tiny network on CIFAR-10, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds:lsun/bedroom", dir="", size=256, channels=3, flip=False),
            family=dict(
                name="ddpm",
                steps=1000,
                schedule="linear",
                prediction="eps",
                variance="fixed_small",
            ),
            network=dict(
                name="unet",
                width=128,
                multipliers=(1, 1, 2, 2, 4, 4),
                blocks=2,
                attention=(16,),
                heads=1,
                dropout=0.0,
                patch=1,
                remat="full",
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-5, warmup=5000, decay="constant", clip=1.0),
            train=dict(
                steps=2_400_000,
                batch_size=64,
                steps_per_call=1,
                accumulate=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=3000,
                picture_count=16,
            ),
            sample=dict(weights="ema", method="ancestral", steps=0, count=64, batch_size=16),
            eval=dict(weights="ema", split="test", batch_size=16, bound_steps=20, count=1000),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="cifar10"),
        network=dict(width=16, multipliers=(1, 1, 2), blocks=1, attention=(8,), norm_groups=4,
                     dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=8, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(method="ddim", steps=5, count=4, batch_size=4),
        eval=dict(count=16, batch_size=8, bound_steps=4),
    ),
}
