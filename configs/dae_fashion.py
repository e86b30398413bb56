"""A denoising autoencoder (Vincent et al. 2010) on the embedded subset of Fashion-MNIST.

    python -m genzoo.main --config=configs/dae_fashion.py:laptop --workdir=runs/dae_fashion

Half of the pixels are hidden from the encoder. For other corruptions set family.corruption to
gaussian or salt_and_pepper, and family.amount.

Variants:
    :laptop  Cost: two minutes on one CPU core. Result: mean squared error 0.0531 on the test
             images, PSNR 19.6.
    :smoke   20 steps, for the tests. Cost: seconds.
Without a variant the network is a wide convolutional one for an accelerator; the full run has not
been made yet, so no result is given.
"""

from ml_collections import ConfigDict

from genzoo.config import choose

DENSE = dict(name="mlp", widths=(512, 256), activation="silu")
SMALL = dict(name="mlp", widths=(32,), activation="silu")


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini"),
            family=dict(name="autoencoder", latent=64, corruption="masking", amount=0.5),
            network=dict(
                name="conv",
                width=256,
                block_width=128,
                blocks=2,
                downsamples=2,
                flat=True,
                activation="silu",
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=3e-4, warmup=500, decay="cosine"),
            train=dict(
                steps=40_000,
                batch_size=128,
                steps_per_call=10,
                log_every=200,
                save_every=2000,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=500,
                picture_count=32,
            ),
            sample=dict(weights="ema"),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    # With dense layers, one call of the compiled program runs many steps on any machine.
    "laptop": dict(
        network=DENSE,
        optimizer=dict(learning_rate=1e-3, warmup=200),
        train=dict(steps=8000, steps_per_call=100, log_every=500, save_every=2000),
    ),
    "smoke": dict(
        network=SMALL,
        optimizer=dict(warmup=5),
        train=dict(
            steps=20,
            batch_size=16,
            steps_per_call=5,
            log_every=5,
            save_every=10,
            picture_first=10,
            picture_count=4,
        ),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20),
    ),
}
