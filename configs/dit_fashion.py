"""DiT on the embedded subset of Fashion-MNIST: a transformer with the recipe of a U-Net.

    python -m genzoo.main --config=configs/dit_fashion.py:laptop --workdir=runs/dit

Peebles & Xie 2023 (Scalable diffusion models with transformers): class-conditional DDPM by a
transformer over patches of 4 x 4 pixels with adaLN-Zero. All else is as in ddpm_fashion_cond, so
that the two compare networks. SiT (Ma et al. 2024) is the same network trained by flow matching:
jit_fashion with another network. The full size has not been trained.

Variants:
    :laptop  1.1M parameters, 2,700 steps of 16. Cost: nine minutes of one CPU core. Result:
             FD-fashion 30.4, 4.18 bits/dim.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", dir="", flip=False),
            family=dict(
                name="ddpm",
                steps=1000,
                schedule="cosine",
                prediction="v",
                variance="fixed_small",
            ),
            conditions=dict(label=dict(dropout=0.1)),
            network=dict(
                name="dit",
                width=384,
                depth=12,
                heads=6,
                patch=4,
                dropout=0.1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=3e-4, warmup=500, decay="cosine", clip=1.0),
            train=dict(
                steps=60_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.9995)),
                picture_first=500,
                picture_count=60,
            ),
            sample=dict(
                weights="ema", method="dpmpp_2m", grid="trailing", steps=20, count=60,
                guidance_scale=1.5,
            ),
            eval=dict(weights="ema", batch_size=100, bound_steps=20),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        network=dict(width=16, depth=2, heads=2, patch=7, dropout=0.0, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=16, batch_size=16, bound_steps=4),
    ),
    # Optimizer and batch of ddpm_fashion_cond:laptop, network of jit_fashion:laptop.
    "laptop": dict(
        network=dict(width=96, depth=6, heads=4, dropout=0.0, dtype="float32"),
        optimizer=dict(method="muon", learning_rate=1e-3, warmup=100, b2=0.99),
        train=dict(steps=2700, batch_size=16, log_every=50, save_every=900, picture_first=180,
                   averages=dict(ema=dict(decay=0.995))),
        eval=dict(count=500),
    ),
}
