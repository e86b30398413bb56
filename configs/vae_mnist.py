"""The VAE and the IWAE of Burda, Grosse & Salakhutdinov 2016 on MNIST: the recipe of their table 1.

    python -m genzoo.main --config=configs/vae_mnist.py --workdir=runs/vae_mnist
    python -m genzoo.main --workdir=runs/vae_mnist --mode=eval

Tanh layers 200-200, 50 latents, 425,284 parameters; images binarised at random each time they are
read; Adam with eps 1e-4, batches of 20; eight stages i = 0..7 of 3^i passes over the 60,000 images
with a learning rate of 1e-3 x 10^(-i/7). `eval` is the bound of 5,000 samples on the 10,000 test
images.
Cost: 9,840,000 steps, 140 minutes on one core; `eval` five minutes on 2 cores.
Result: 86.78 +- 0.23 nats, 17 active units.
Published: 86.76 nats, 19 active units.

Variants:
    :iwae50      the importance-weighted objective with 50 samples. Published: 84.78 nats, 25 units.
    :two_layers  stochastic layers of 100 and 50, 521,084 parameters. Published: 85.33 nats, 16 + 5
                 units.
    :laptop      the first four of the eight stages, 40 passes. Cost: two minutes. Result: 91.6 nats
                 on 1,000 test images, 17 units.
    :smoke       two short passes over embedded images, for the tests.
"""

from ml_collections import ConfigDict

from genzoo.config import choose

PASS = 60_000 // 20  # steps


def stages(count: int) -> dict:
    """Stage i lasts 3^i passes at 10^(-i/7) of the initial learning rate."""
    ends = [PASS * (3 ** (i + 1) - 1) // 2 for i in range(count)]
    factors = [10 ** (-i / 7) for i in range(count)]
    return dict(
        train=dict(steps=ends[-1]),
        optimizer=dict(stage_ends=tuple(ends[:-1]), stage_factors=tuple(factors)),
    )


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="mnist", dir=""),
            family=dict(
                name="vae",
                latents=(50,),
                decoder="bernoulli",
                binarise="stochastic",
                objective="elbo",
                samples=1,
            ),
            network=dict(name="mlp", widths=(200, 200), top_widths=(100, 100), activation="tanh"),
            optimizer=dict(learning_rate=1e-3, eps=1e-4, clip=0.0, decay="stages"),
            train=dict(
                steps=1,
                batch_size=20,
                steps_per_call=PASS,
                log_every=10 * PASS,
                save_every=40 * PASS,
                averages=dict(),
                picture_first=10 * PASS,
                picture_count=100,
            ),
            sample=dict(count=100, batch_size=100),
            eval=dict(batch_size=100, importance_samples=5000),
        )
    )
    config.update(ConfigDict(stages(8)))
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "iwae50": dict(family=dict(objective="iwae", samples=50)),
    "two_layers": dict(family=dict(latents=(100, 50))),
    "laptop": {**stages(4), "eval": dict(count=1000)},
    "smoke": dict(
        data=dict(name="fashion_mini"),
        optimizer=dict(stage_ends=(10,), stage_factors=(1.0, 0.5)),
        train=dict(steps=20, steps_per_call=10, log_every=10, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20, importance_samples=10),
    ),
}
