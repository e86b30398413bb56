"""A classifier for MNIST, whose features measure distances between sets of digits.

    python -m genzoo.main --config=configs/classifier_mnist.py --workdir=runs/classifier
    python -m genzoo.main --workdir=runs/classifier --mode=eval

Its params are the feature network "digits" (evaluate/features/own.py). Cost: six minutes on
2 CPU cores. Result: test accuracy 0.994.

Variants:
    :smoke  20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="mnist", dir=""),
            family=dict(name="classifier", noisy=False),
            network=dict(
                name="classifier",
                width=32,
                multipliers=(1, 2),
                blocks=1,
                attention=(7,),
                head_width=32,
                patch=2,
                norm_groups=16,
                dropout=0.1,
                dtype="float32",
            ),
            optimizer=dict(learning_rate=1e-3, warmup=50, decay="cosine", weight_decay=0.05),
            train=dict(
                steps=2500,
                batch_size=64,
                steps_per_call=1,
                log_every=50,
                save_every=500,
                averages=dict(ema=dict(decay=0.99)),
            ),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        network=dict(width=16, multipliers=(1,), attention=(), head_width=16),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10),
        eval=dict(count=48, batch_size=16),
    ),
}
