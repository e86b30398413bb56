"""A VAE of documents (Miao et al. 2016), here the documentation of Python's standard library.

    python -m genzoo.main --config=configs/vae_documents.py:laptop --workdir=runs/vae_documents
    python -m genzoo.main --workdir=runs/vae_documents --mode=eval
    python -m genzoo.main --workdir=runs/vae_documents --mode=retrieve

A document is represented by the counts of 2,000 words; given the code they are multinomial.
`--mode=eval` reports the perplexity per word; see ae_documents.py for `--mode=retrieve`.

Variants:
    :laptop  one hidden layer of 256. Cost: half a minute on a CPU. Result: perplexity 398 (821 for
             the frequencies of the words alone), precision at 10 of 0.462 over the 608 test
             documents of 53 modules (TF-IDF: 0.467).
    :smoke   20 steps, for the tests. Cost: seconds.
Without a variant the encoder has the published size, two layers of 500, and so has the decoder,
which is linear in the paper: a minute, perplexity 357, precision 0.450.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="docstrings", vocabulary=2000),
            family=dict(name="vae", latents=(50,), decoder="multinomial"),
            network=dict(name="mlp", widths=(500, 500), activation="tanh"),
            optimizer=dict(learning_rate=1e-3, warmup=100, decay="cosine"),
            train=dict(
                steps=3000,
                batch_size=128,
                steps_per_call=100,
                log_every=500,
                save_every=1000,
                averages=dict(ema=dict(decay=0.99)),
            ),
            sample=dict(weights="ema"),
            eval=dict(weights="ema", batch_size=100),
            tools=dict(metric="cosine", neighbours=10),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "laptop": dict(network=dict(widths=(256,))),
    "smoke": dict(
        data=dict(vocabulary=50),
        network=dict(widths=(16,)),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, steps_per_call=5, log_every=5, save_every=10),
        eval=dict(count=40, batch_size=20),
    ),
}
