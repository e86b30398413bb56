"""JiT-B/16 on ImageNet at 256 pixels: a transformer over patches of pixels predicts clean data.

    python -m genzoo.data.prepare_tfds imagenet2012 --data_dir=DIR
    python -m genzoo.main --config=configs/jit_imagenet256.py --workdir=runs/jit \\
        --config.data.dir=DIR
    python -m genzoo.main --workdir=runs/jit --mode=sample --config.sample.conditions.label=all

Li & He 2025 (Back to basics: let denoising generative models denoise, arXiv 2511.13720). For a
folder with a sub-folder of images for each class: --config.data.name=folder:PATH. 131,123,712
parameters. The learning rate is 5e-5 for each 256 images of a batch, after a warm-up of five
epochs. The full run has not been made yet.
Cost: 200 epochs are 250,200 steps of 1,024 images, about 155 TFLOP each: four hours on eight H100
at a third of their peak, if the images arrive at 17,000 a second. Compiled for v5e-256 at level O0:
4.0 GB and 0.62 TFLOP per chip and step.
Published: FID 4.37 after 200 epochs, 3.66 after 600 (50 Heun steps, guidance between t = 0 and 0.9
with a scale of 2.9, the best of three averages).
At 512 pixels: --config.data.size=512 --config.network.patch=32 --config.family.noise_scale=2.

Variants:
    :smoke   20 steps of a tiny network on Fashion-MNIST, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds:imagenet2012", dir="", size=256, channels=3, num_classes=1000,
                      flip=True),
            # In the paper 0 is noise, so that its logit-normal times have the mean -0.8.
            family=dict(
                name="flow_matching",
                path="straight",
                prediction="x_0",
                weighting="bounded_velocity",
                least_time=0.05,
                times_drawn="logit_normal",
                times_mean=0.8,
                times_deviation=0.8,
            ),
            conditions=dict(label=dict(dropout=0.1)),
            network=dict(
                name="jit",
                width=768,
                depth=12,
                heads=12,
                patch=16,
                bottleneck=128,
                class_tokens=32,
                class_start=4,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=6255, b2=0.95),
            train=dict(
                steps=250_200,
                batch_size=1024,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(
                    ema=dict(decay=0.9999), ema_9998=dict(decay=0.9998),
                    ema_9996=dict(decay=0.9996),
                ),
                picture_first=1000,
                picture_count=36,
            ),
            sample=dict(
                weights="ema", method="heun", grid="trailing", steps=50, count=64,
                guidance_scale=2.9, guidance_high=0.9,
            ),
            eval=dict(weights="ema", batch_size=64, end=0.2),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="fashion_mini", dir=""),
        network=dict(width=16, depth=2, heads=2, patch=7, bottleneck=4, class_tokens=1,
                     class_start=1, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
}
