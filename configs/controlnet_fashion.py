"""From outlines to garments: a ControlNet on a trained flow-matching model of Fashion-MNIST.

First train fm_fashion:laptop in runs/fm_fashion, or set frozen.base.workdir.

    python -m genzoo.main --config=configs/fm_fashion.py:laptop --workdir=runs/fm_fashion
    python -m genzoo.main --config=configs/controlnet_fashion.py:laptop --workdir=runs/control
    python -m genzoo.main --workdir=runs/control --mode=sample --config.sample.repeat=8 \\
        --config.sample.count=512 --config.sample.pictures=restoration
    python -m genzoo.main --workdir=runs/control --mode=sample \\
        --config.sample.conditions.hint=FILE

The hint is the outline of an image (Zhang et al. 2023, Adding conditional control to text-to-image
diffusion models): FILE is an image of at least 28 x 28 pixels, of which the outline is taken.
Without it, `--mode=sample` takes images of the test split and reports how well the outlines of the
samples agree with the hints (F1). The branch starts as a copy of the base's encoder; the base stays
as it is and is copied into the workdir, which is then enough. sample.control_scale = 0 gives the
samples of the base.

Variants:
    :laptop  Cost: about ten minutes on 2 CPU cores, by the number of operations. Result: none yet.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
Without a variant the base is fm_fashion at full size; the full run has not been made yet.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", dir="", flip=False),
            family=dict(name="controlnet", hint_widths=(16, 32, 96), decoder=False),
            conditions=dict(hint=dict(of="x", transform="outline", way="control")),
            frozen=dict(base=dict(workdir="runs/fm_fashion", weights="ema")),
            optimizer=dict(learning_rate=1e-4, warmup=500, clip=1.0),
            train=dict(
                steps=20_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=500,
                picture_count=64,
            ),
            sample=dict(weights="ema", method="heun", grid="trailing", steps=50, count=64),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        family=dict(hint_widths=(4, 8)),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8),
    ),
    "laptop": dict(
        family=dict(hint_widths=(8, 16)),
        optimizer=dict(learning_rate=1e-3, warmup=100, decay="cosine", b2=0.99),
        train=dict(steps=1200, batch_size=32, log_every=50, save_every=400, picture_first=120,
                   averages=dict(ema=dict(decay=0.99))),
    ),
}
