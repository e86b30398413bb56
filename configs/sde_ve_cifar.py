"""The variance-exploding score SDE on CIFAR-10 (Song et al. 2021): NCSN++, continuous training.

    python -m genzoo.main --config=configs/sde_ve_cifar.py --workdir=runs/sde_ve

62,758,787 parameters: the published network, with FIR resampling, a residual input pyramid and
Fourier features of log sigma. 1.3 million steps of 128 images take days on one accelerator.
Published: FID 2.38 with predictor-corrector sampling in 2 x 1000 evaluations. The full run has not
been made yet, so no result is given.

Variants:
    :smoke  20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", dir="", flip=True),
            family=dict(
                name="score_sde", process="ve", sigma_min=0.02, sigma_max=100.0, prediction="eps",
                objective="simple", noise_input="log_noise",
            ),
            network=dict(
                name="song_unet",
                width=128,
                multipliers=(1, 2, 2, 2),
                blocks=4,
                attention=(16,),
                resample_filter=(1, 3, 3, 1),
                progressive_input="residual",
                time_embedding="fourier",
                embedding_width=256,
                dropout=0.1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=5000, clip=1.0),
            train=dict(
                steps=1_300_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=1000,
                picture_count=64,
            ),
            sample=dict(
                weights="ema", method="predictor_corrector", grid="uniform", steps=1000, count=64
            ),
            eval=dict(weights="ema", batch_size=64),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="fashion_mini"),
        network=dict(width=16, multipliers=(1, 1), blocks=1, attention=(), patch=2,
                     embedding_width=32, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
}
