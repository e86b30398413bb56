"""VQ-VAE-2 (Razavi et al. 2019) on CIFAR-10: two grids of codes, 16 x 16 below and 8 x 8 above.

    python -m genzoo.main --config=configs/vqvae2_cifar.py --workdir=runs/vqvae2_cifar

512 codes on each level. The full run has not been made yet, so no result is given. Three levels:
--config.network.levels=3 --config.family.codes=512,512,512. With downsamples=2 and nothing else
changed, the network is the published one for larger images, with 1,388,867 parameters without
codebooks.

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
                codes=(512, 512),
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
                levels=2,
                downsamples=1,
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
        family=dict(codes=(16, 8), latent=4, kmeans=2),
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
