"""VQ-VAE on CIFAR-10, the size of the Sonnet example: 695,491 parameters with the codebook.

    python -m genzoo.main --config=configs/vqvae_cifar.py --workdir=runs/vqvae_cifar

8 x 8 codes out of 512, commitment 0.25, moving averages of 0.99. The full run has not been made
yet, so no result is given.
Cost: 100,000 steps of 128 images; the example uses batches of 32.

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
                name="vqvae",
                codes=(512,),
                latent=64,
                codebook="ema",
                decay=0.99,
                kmeans=10,
                revive_below=0.05,
                commitment=0.25,
                data_variance=0.253,
            ),
            network=dict(
                name="hierarchy",
                levels=1,
                downsamples=2,
                width=128,
                block_width=32,
                blocks=2,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=3e-4, warmup=500),
            train=dict(
                steps=100_000,
                batch_size=128,
                steps_per_call=10,
                log_every=200,
                save_every=5000,
                averages=dict(),
                picture_first=1000,
                picture_count=32,
            ),
            sample=dict(),
            eval=dict(batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="fashion_mini"),
        family=dict(codes=(16,), latent=4, kmeans=2),
        network=dict(width=8, block_width=4, blocks=1, dtype="float32"),
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
        eval=dict(count=40, batch_size=20),
    ),
}
