"""A convolutional VAE on CIFAR-10 with a discretised logistic mixture; its bound is in bits/dim.

    python -m genzoo.main --config=configs/vae_cifar.py --workdir=runs/vae_cifar

A grid of 8 x 8 x 32 latents, the convolutional network of the VQ-VAE paper's comparison (two
strided convolutions and two residual blocks of 256), Adam 2e-4. The full run has not been made yet.
Cost: 250,000 steps of 128 images.
Published: 4.51 bits/dim, for the continuous VAE of that paper.

Variants:
    :smoke   20 steps of a tiny network on the embedded images, for the tests.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", flip=True),
            family=dict(
                name="vae",
                latents=(32,),
                decoder="logistic_mixture",
                components=10,
                warmup="linear",
                warmup_steps=10_000,
            ),
            network=dict(
                name="conv",
                width=256,
                block_width=256,
                blocks=2,
                downsamples=2,
                flat=False,
                activation="relu",
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=1000, decay="constant", clip=100.0),
            train=dict(
                steps=250_000,
                batch_size=128,
                steps_per_call=10,
                log_every=200,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9995)),
                picture_first=1000,
                picture_count=64,
            ),
            sample=dict(weights="ema", noise=True),
            eval=dict(weights="ema", batch_size=100, importance_samples=10),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="fashion_mini"),
        family=dict(latents=(2,), components=2, warmup_steps=10),
        network=dict(width=8, block_width=8, blocks=1, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(
            steps=20,
            batch_size=16,
            steps_per_call=1,
            log_every=5,
            save_every=10,
            picture_first=10,
            picture_count=4,
        ),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20, importance_samples=2),
    ),
}
