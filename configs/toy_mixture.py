"""EDM on a ring of eight unequal Gaussians in the plane, whose density is known exactly.

    python -m genzoo.main --config=configs/toy_mixture.py --workdir=runs/mixture
    python -m genzoo.main --workdir=runs/mixture --mode=sample
    python -m genzoo.main --workdir=runs/mixture --mode=eval

`samples/latest/` then shows data beside samples, the velocity field, the paths of six solvers and
the log-density beside the exact one. eval.json has the model's nats and the exact ones
(`nats_exact`).
Cost: a minute on a CPU.

Variants:
    :vp     a variance-preserving score SDE with the likelihood weighting.
    :smoke  20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="mixture", dir=""),
            family=dict(name="edm", data_deviation=1.0, noise_mean=-1.2, noise_deviation=1.6),
            network=dict(name="point_mlp", width=128, depth=3),
            optimizer=dict(learning_rate=2e-3, warmup=100, decay="cosine", clip=1.0),
            train=dict(
                steps=6000,
                batch_size=256,
                steps_per_call=100,
                log_every=500,
                save_every=6000,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=1000,
                picture_count=10_000,
            ),
            sample=dict(
                weights="ema", method="heun", grid="karras", steps=32,
                count=10_000, batch_size=10_000, pictures="field,trajectories,density",
            ),
            eval=dict(weights="ema", count=2000, batch_size=2000, trace="exact"),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        network=dict(width=16, depth=1),
        optimizer=dict(warmup=5),
        train=dict(steps=20, steps_per_call=10, batch_size=32, log_every=10, save_every=20,
                   picture_first=20, picture_count=8),
        sample=dict(steps=4, count=8, batch_size=8, pictures=""),
        eval=dict(count=16, batch_size=16, tolerance=1e-2),
    ),
    "vp": dict(
        family=dict(
            name="score_sde", process="vp", prediction="v", objective="likelihood_importance"
        ),
        sample=dict(method="dpmpp_2m", grid="logsnr", steps=50),
    ),
}
