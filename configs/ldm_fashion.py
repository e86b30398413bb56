"""Latent flow matching on the embedded subset of Fashion-MNIST: a transformer over 7 x 7 latents.

The latents are those of vqvae_fashion before quantisation, which its decoder rounds to codes, as in
the VQ models of Rombach et al. 2022 (High-resolution image synthesis with latent diffusion models).
First train vqvae_fashion in runs/vqvae_fashion, or set frozen.first.workdir to another first stage.

    python -m genzoo.main --config=configs/ldm_fashion.py:laptop --workdir=runs/ldm

The first stage is copied into the workdir, which is all that sampling needs.

Variants:
    :laptop  0.9M parameters, 2,700 steps of 64. Cost: not measured yet; minutes of one CPU core.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
Without a variant the config is for an accelerator; no run has been made yet.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini"),
            space=dict(name="latent"),
            frozen=dict(first=dict(workdir="runs/vqvae_fashion", weights="raw")),
            family=dict(name="flow_matching", times_drawn="logit_normal"),
            conditions=dict(label=dict(dropout=0.1)),
            network=dict(
                name="dit",
                width=384,
                depth=12,
                heads=6,
                patch=1,
                dropout=0.1,
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
                picture_count=60,
            ),
            sample=dict(
                weights="ema", method="heun", grid="trailing", steps=20, count=60,
                guidance_scale=1.5,
            ),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "laptop": dict(
        network=dict(width=96, depth=6, heads=4, dropout=0.0, dtype="float32"),
        optimizer=dict(method="muon", learning_rate=1e-3, warmup=100, b2=0.99),
        train=dict(steps=2700, batch_size=64, log_every=50, save_every=900, picture_first=180,
                   averages=dict(ema=dict(decay=0.995))),
        eval=dict(count=100, tolerance=1e-3),
    ),
    "smoke": dict(
        space=dict(examples=500),
        network=dict(width=16, depth=1, heads=2, dropout=0.0, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
}
