"""A classifier for the embedded subset of Fashion-MNIST, with a representation to probe.

    python -m genzoo.main --config=configs/classifier_fashion.py:laptop --workdir=runs/classifier
    python -m genzoo.main --workdir=runs/classifier --mode=eval
    python -m genzoo.main --workdir=runs/classifier --mode=encode

Variants:
    :noisy         trained at all noise levels of the cosine table, to guide other models with
                   --config.sample.classifier=WORKDIR.
    :laptop        4,000 steps of a small network. Its params are the feature network "fashion"
                   (evaluate/features/own.py). Cost: nine minutes on 2 CPU cores.
                   Result: test accuracy 0.893.
    :noisy_laptop  1,000 steps for :noisy. Cost: two to three minutes on 2 CPU cores.
    :smoke         20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", dir="", flip=True),
            family=dict(name="classifier", noisy=False),
            network=dict(
                name="classifier",
                width=64,
                multipliers=(1, 2, 4),
                blocks=2,
                attention=(14, 7),
                head_width=32,
                dropout=0.1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=3e-4, warmup=200, decay="cosine", weight_decay=0.05),
            train=dict(
                steps=10_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=1000,
                averages=dict(ema=dict(decay=0.999)),
            ),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


_NOISY = dict(noisy=True, process="ddpm_cosine")
_LAPTOP = dict(
    network=dict(width=32, multipliers=(1, 2), blocks=1, attention=(7,), patch=2, norm_groups=16,
                 dtype="float32"),
    optimizer=dict(learning_rate=1e-3, warmup=50),
    train=dict(steps=1000, batch_size=64, log_every=50, save_every=500,
               averages=dict(ema=dict(decay=0.99))),
)

VARIANTS = {
    "noisy": dict(family=_NOISY),
    "smoke": dict(
        network=dict(width=16, multipliers=(1,), blocks=1, attention=(), head_width=16, patch=2,
                     dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10),
        eval=dict(count=48, batch_size=16),
    ),
    "laptop": {**_LAPTOP, "train": {**_LAPTOP["train"], "steps": 4000}},
    "noisy_laptop": dict(family=_NOISY, **_LAPTOP),
}
