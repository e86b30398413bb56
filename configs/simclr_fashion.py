"""SimCLR on the embedded subset of Fashion-MNIST: a representation from pairs of views.

    python -m genzoo.main --config=configs/simclr_fashion.py:laptop --workdir=runs/simclr
    python -m genzoo.main --workdir=runs/simclr --mode=probe
    python -m genzoo.main --workdir=runs/simclr --mode=retrieve --config.tools.metric=cosine

Views are crops with changes of brightness and contrast; grey images have no colour to change. Crops
show at least a quarter of an image: those of SimCLR, at least 0.08, suit photographs. Chance is
ln(2N - 1), 5.5 for the laptop's batch.

Variants:
    :laptop  3,000 steps of 128 with a small network. Cost: half an hour of one CPU core (an
             estimate; the run has not been made yet).
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
Without a variant the networks are for an accelerator; that run has not been made yet either.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini"),
            family=dict(
                name="contrastive",
                objective="nt_xent",
                temperature=0.2,
                hidden=512,
                embedding=128,
                area=0.25,
                strength=0.5,
                grey=0.0,
            ),
            network=dict(
                name="classifier",
                width=64,
                multipliers=(1, 2, 4),
                blocks=2,
                attention=(7,),
                head_width=32,
                dtype="bfloat16",
            ),
            optimizer=dict(
                learning_rate=1e-3,
                warmup=500,
                decay="cosine",
                weight_decay=1e-4,
                decay_biases=False,
            ),
            train=dict(
                steps=20_000,
                batch_size=512,
                steps_per_call=1,
                log_every=100,
                save_every=1000,
                averages=dict(),
                picture_count=0,
            ),
            eval=dict(batch_size=250),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "laptop": dict(
        family=dict(hidden=128, embedding=64),
        network=dict(
            width=32,
            multipliers=(1, 2),
            blocks=1,
            attention=(),
            patch=2,
            norm_groups=16,
            dtype="float32",
        ),
        optimizer=dict(warmup=100),
        train=dict(steps=3000, batch_size=128, log_every=50, save_every=500),
    ),
    "smoke": dict(
        family=dict(hidden=16, embedding=8),
        network=dict(
            width=16,
            multipliers=(1,),
            blocks=1,
            attention=(),
            head_width=16,
            patch=2,
            dtype="float32",
        ),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10),
        eval=dict(count=48, batch_size=16),
    ),
}
