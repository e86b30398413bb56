"""A class-conditional transformer over the codes of vqvae_cifar, which turns it into a generator.

An image has 8 x 8 codes. First train vqvae_cifar in runs/vqvae_cifar, or set
frozen.tokenizer.workdir.

    python -m genzoo.main --config=configs/prior_vqvae_cifar.py --workdir=runs/prior_vqvae_cifar

The checkpoint includes the tokenizer, so this workdir is all that sampling needs. The full run has
not been made yet, so no result is given.

Variants:
    :smoke   20 steps of a tiny network on the embedded images, for the tests.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", flip=True),
            family=dict(name="token_prior"),
            conditions=dict(label=dict()),
            frozen=dict(tokenizer=dict(workdir="runs/vqvae_cifar", weights="raw")),
            network=dict(
                name="transformer", width=512, depth=12, heads=8, dropout=0.1, dtype="bfloat16"
            ),
            optimizer=dict(
                learning_rate=3e-4, warmup=1000, decay="cosine", weight_decay=0.01, b2=0.95
            ),
            train=dict(
                steps=200_000,
                batch_size=128,
                steps_per_call=1,
                log_every=200,
                save_every=5000,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=1000,
                picture_count=60,
            ),
            sample=dict(
                weights="ema", count=60, batch_size=60, temperature=1.0, top_k=0, top_p=1.0
            ),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="fashion_mini"),
        network=dict(width=16, depth=1, heads=2, dropout=0.0, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(
            steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10, picture_count=4
        ),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20),
    ),
}
