"""A class-conditional transformer over the codes of vqvae_fashion, which turns it into a generator.

An image has 7 x 7 codes. First train vqvae_fashion in runs/vqvae_fashion, or set
frozen.tokenizer.workdir.

    python -m genzoo.main --config=configs/prior_vqvae_fashion.py:laptop --workdir=runs/prior

The checkpoint includes the tokenizer, so this workdir is all that sampling needs.

Variants:
    :laptop  Cost: four minutes on one CPU core. Result: 102.7 nats per image on the test images,
             3.02 bits per code (7 for a uniform distribution over the 128), and garments that can
             be told apart.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
Without a variant the config is for an accelerator; the full run has not been made yet.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini"),
            family=dict(name="token_prior"),
            conditions=dict(label=dict()),
            frozen=dict(tokenizer=dict(workdir="runs/vqvae_fashion", weights="raw")),
            network=dict(
                name="transformer", width=256, depth=8, heads=8, dropout=0.2, dtype="bfloat16"
            ),
            optimizer=dict(
                learning_rate=3e-4, warmup=1000, decay="cosine", weight_decay=0.01, b2=0.95
            ),
            train=dict(
                steps=20_000,
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
    "laptop": dict(
        network=dict(width=128, depth=3, heads=4, dropout=0.1, dtype="float32"),
        optimizer=dict(learning_rate=1e-3, warmup=100),
        train=dict(
            steps=1500,
            batch_size=64,
            log_every=100,
            save_every=500,
            picture_first=150,
            averages=dict(ema=dict(decay=0.99)),
        ),
    ),
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
