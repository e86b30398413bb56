"""Text to image on coloured shapes by MM-DiT: captions and patches in one joint attention.

    python -m genzoo.main --config=configs/mmdit_shapes.py:laptop --workdir=runs/mmdit
    python -m genzoo.main --workdir=runs/mmdit --mode=sample --config.sample.count=800

Esser et al. 2024 (Stable Diffusion 3): text and image are two streams with their own weights that
attend to each other in every block. Data, prediction, times, optimizer and sampling are those of
fm_shapes, whose U-Net attends to the captions by cross-attention, so that the prompt accuracy of
the second command compares the networks. The full size has not been trained.

Variants:
    :laptop  2.3M parameters, 4,200 steps of 32. Cost: about twenty minutes on 2 CPU cores.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="shapes", size=64),
            # As in fm_shapes.
            family=dict(name="flow_matching", path="straight", prediction="x_0",
                        weighting="bounded_velocity", least_time=0.3, shift=1.5),
            conditions=dict(text=dict(way="attend", layers=4, dropout=0.1)),
            network=dict(
                name="mmdit",
                width=512,
                depth=12,
                heads=8,
                patch=4,
                qk_norm=True,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=500, decay="cosine", clip=1.0),
            train=dict(
                steps=100_000,
                batch_size=256,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.9995)),
                picture_first=500,
                picture_count=64,
            ),
            sample=dict(
                weights="ema", method="heun", grid="trailing", steps=20, count=64, batch_size=64,
                guidance_scale=2.0, shift=2.0,
            ),
            eval=dict(weights="ema", batch_size=100, count=1000, end=0.2),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(size=32),
        conditions=dict(text=dict(way="attend", layers=1, dropout=0.1)),
        network=dict(width=16, depth=2, heads=2, patch=8, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
    "laptop": dict(
        data=dict(size=32),
        conditions=dict(text=dict(way="attend", layers=2, dropout=0.1)),
        network=dict(width=96, depth=6, heads=4, dtype="float32"),
        optimizer=dict(method="muon", learning_rate=1e-3, warmup=200, b2=0.99),
        train=dict(steps=4200, batch_size=32, log_every=50, save_every=500, picture_first=250,
                   picture_count=36, averages=dict(ema=dict(decay=0.998))),
        sample=dict(method="dpmpp_2m", steps=20),
        eval=dict(count=100, tolerance=1e-3),
    ),
}
