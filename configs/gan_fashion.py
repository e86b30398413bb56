"""R3GAN on the embedded subset of Fashion-MNIST, conditional on the class.

    python -m genzoo.main --config=configs/gan_fashion.py:laptop --workdir=runs/gan
    python -m genzoo.main --workdir=runs/gan --mode=eval --config.eval.distances=fd_fashion,pr
    python -m genzoo.main --workdir=runs/gan --mode=sample --config.sample.conditions.label=sneaker

Huang et al. 2024 (The GAN is dead; long live the GAN! A modern GAN baseline): a relativistic loss,
the gradient of the critic penalised at data and at samples, residual networks without
normalisation. --config.family.objective=non_saturating --config.family.penalise=data is the GAN of
Goodfellow et al. 2014 with the penalty R1 of Mescheder et al. 2018. A sample costs one pass of the
generator. The full size has not been trained.

Variants:
    :laptop  small networks. Cost: twenty minutes on 2 CPU cores (an estimate; the run has not been
             made yet).
    :smoke   20 steps of tiny networks, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", dir="", flip=True),
            family=dict(
                name="gan",
                objective="relativistic",
                penalise="both",
                penalty=0.5,
                penalty_last=0.05,
                penalty_steps=40_000,
            ),
            conditions=dict(label=dict(null=False)),
            network=dict(name="r3gan", widths=(384, 384, 384), blocks=2, dtype="bfloat16"),
            # Adam without momentum, which would carry a player past the other's answer.
            optimizer=dict(learning_rate=2e-4, b1=0.0, b2=0.99, warmup=0, decay="constant", clip=0),
            train=dict(
                steps=40_000,
                batch_size=256,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=500,
                picture_count=60,
            ),
            sample=dict(weights="ema", count=60),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        family=dict(latent=4, penalty_steps=20),
        network=dict(widths=(8, 8), blocks=1, group=4, embedding=4, dtype="float32"),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=16, batch_size=16),
    ),
    "laptop": dict(
        family=dict(penalty_steps=3000),
        network=dict(widths=(128, 64, 16), blocks=1, group=8, dtype="float32"),
        optimizer=dict(learning_rate=5e-4),
        train=dict(steps=3000, batch_size=32, log_every=50, save_every=1000, picture_first=200,
                   averages=dict(ema=dict(decay=0.995))),
        eval=dict(count=500),
    ),
}
