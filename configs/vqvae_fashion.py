"""VQ-VAE on the embedded subset of Fashion-MNIST: an image as 7 x 7 codes out of 128.

    python -m genzoo.main --config=configs/vqvae_fashion.py:laptop --workdir=runs/vqvae_fashion

343 bits per image instead of 6,272. Sampling takes a prior over the codes, which
configs/prior_vqvae_fashion.py trains on this workdir.

Variants:
    :laptop  Cost: a minute and a half on one CPU core. Result: PSNR 22.2 on the test images, all
             128 codes used, perplexity 104.
    :fsq     The same without a codebook: three channels of five steps, 125 codes. Cost: two minutes
             of one CPU core. Result: PSNR 22.1, all codes used, perplexity 48.
    :lfq     The same with the signs of seven channels. Cost: two minutes of one CPU core. Result:
             PSNR 20.1, all 128 codes used, perplexity 109.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
Without a variant the config is for an accelerator; the full run has not been made yet.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini"),
            family=dict(
                name="vqvae",
                codes=(128,),
                latent=32,
                codebook="ema",
                decay=0.99,
                kmeans=10,
                revive_below=0.1,
                commitment=0.25,
                data_variance=0.5,
            ),
            network=dict(
                name="hierarchy",
                levels=1,
                downsamples=2,
                width=128,
                block_width=64,
                blocks=2,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=3e-4, warmup=500),
            train=dict(
                steps=30_000,
                batch_size=128,
                steps_per_call=10,
                log_every=200,
                save_every=2000,
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
    "laptop": dict(
        network=dict(width=64, block_width=32, blocks=1, dtype="float32"),
        optimizer=dict(learning_rate=1e-3, warmup=100, decay="cosine"),
        train=dict(
            steps=2000,
            batch_size=64,
            steps_per_call=1,
            log_every=100,
            save_every=500,
            picture_first=200,
        ),
    ),
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

# What concerns a codebook is as it is by default.
_NO_CODEBOOK = dict(latent=64, revive_below=0.0)
for _name, _family in (
    ("fsq", dict(codebook="fsq", steps=(5, 5, 5), codes=(512,), commitment=0.25)),
    ("lfq", dict(codebook="lfq", codes=(128,))),
):
    VARIANTS[_name] = {**VARIANTS["laptop"], "family": {**_family, **_NO_CODEBOOK}}
