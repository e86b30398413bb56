"""The autoencoder of latent diffusion on the embedded subset of Fashion-MNIST: 7 x 7 latents.

    python -m genzoo.main --config=configs/kl_fashion.py:laptop --workdir=runs/kl_fashion
    python -m genzoo.main --workdir=runs/kl_fashion --mode=reconstruct
    python -m genzoo.main --workdir=runs/kl_fashion --mode=eval \\
        --config.eval.reconstructions=psnr,rfd_fashion

Rombach et al. 2022 (High-resolution image synthesis with latent diffusion models). An image becomes
7 x 7 latents with four channels: 196 numbers instead of 784. The loss has a perceptual part, by the
small classifier that comes with genzoo, and from step `family.critic_after` on a critic of patches.
--config.family.critic_weight=0 trains without the critic, family.perceptual=none without the
perceptual part. The full size has not been trained.

Variants:
    :laptop  small networks. Cost: ten minutes of one CPU core (0.43 s for each step; the run has
             not been made yet).
    :smoke   20 steps of tiny networks, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", flip=True),
            family=dict(
                name="kl_autoencoder",
                latent=4,
                kl_weight=1e-6,
                perceptual="fashion",
                critic_weight=0.5,
                critic_after=5000,
            ),
            network=dict(
                name="autoencoder_kl",
                width=64,
                multipliers=(1, 2, 2),
                blocks=2,
                critic_width=32,
                critic_layers=2,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, b1=0.5, b2=0.9, warmup=500, clip=0),
            train=dict(
                steps=30_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
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
    "smoke": dict(
        family=dict(latent=2, critic_after=10),
        network=dict(width=8, multipliers=(1, 2), blocks=1, norm_groups=4, critic_width=4,
                     dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20),
    ),
    "laptop": dict(
        family=dict(critic_after=400),
        network=dict(width=16, multipliers=(1, 2, 4), blocks=1, norm_groups=8, critic_width=16,
                     dtype="float32"),
        optimizer=dict(learning_rate=1e-3, warmup=100),
        train=dict(steps=1200, batch_size=16, log_every=50, save_every=400, picture_first=200,
                   averages=dict(ema=dict(decay=0.995))),
        eval=dict(count=1000),
    ),
}
