"""Times the 35.7M DDPM U-Net here and in diffusers/torch, side by side on this machine.

    pip install torch==2.13.0 diffusers==0.42.1 -e .
    python tests/peers/unet_speed.py [--rounds 6] [--measure train forward ddim] [--json FILE]

float32 throughout; the training step is forward, backward, clipping, Adam and the average of the
params. The method is that of side_by_side.py.

The allocator is left as it is, as a user has it. To keep freed pages (MALLOC_ARENA_MAX=1,
MALLOC_MMAP_MAX_=0, MALLOC_TRIM_THRESHOLD_=68719476736) saves every contender a tenth of a training
step, but in a process that had trained and sampled, forward passes of genzoo were up to a third
slower with it.
"""

import os

from side_by_side import Comparison, run

BATCH = {"train": 8, "forward": 8, "ddim": 16}
CALLS = {"train": 4, "forward": 6, "ddim": 1}


def genzoo_calls() -> dict:
    import jax
    import jax.numpy as jnp

    from genzoo import check, config
    from genzoo.experiment import Experiment, variables_of
    from genzoo.modes.sample import draw
    from genzoo.requests import Requests
    from genzoo.runtime.compilation import compile_program, run_once

    raw = config.override(
        config.load("configs/ddpm_cifar.py"),
        {
            "network.dtype": "float32", "train.batch_size": str(BATCH["train"]),
            "sample.method": "ddim", "sample.steps": "50", "sample.clip": "none",
        },
    )  # fmt: skip
    experiment = Experiment(check.check(raw))
    state = run_once(experiment.initial_state)
    held = {"x": jnp.zeros((64, 32, 32, 3), jnp.uint8), "label": jnp.zeros(64, jnp.int32)}
    rows = {"rows": jnp.arange(BATCH["train"], dtype=jnp.int32)[None]}
    variables = variables_of(state, "raw")
    requests = Requests(experiment=experiment, family=experiment.family)
    programs: dict = {}
    holder = {}

    def train():
        if "program" not in holder:
            holder["state"] = jax.tree.map(jnp.copy, state)
            call = experiment.updater(1).call
            holder["program"] = compile_program(
                jax.jit(call, donate_argnums=(0,)).lower(state, held, rows)
            )
        holder["state"], measured = holder["program"](holder["state"], held, rows)
        jax.block_until_ready(measured)

    x, t = jnp.ones((BATCH["forward"], 32, 32, 3)), jnp.full((BATCH["forward"],), 10.0)

    def forward():
        if "forward" not in holder:
            apply = experiment.family.denoiser.network.apply
            holder["forward"] = compile_program(
                jax.jit(lambda params, x, t: apply(params, x, t, {})).lower(state.params, x, t)
            )
        jax.block_until_ready(holder["forward"](state.params, x, t))

    def ddim():
        list(draw(requests, variables, programs, BATCH["ddim"]))

    return {"train": train, "forward": forward, "ddim": ddim}


def torch_calls(compiled: bool) -> dict:
    import torch
    from diffusers import DDIMScheduler, UNet2DModel

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=2, dropout=0.1,
        block_out_channels=(128, 256, 256, 256), norm_eps=1e-6, downsample_padding=0,
        flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 35_746_307
    run = torch.compile(model) if compiled else model
    params = list(model.parameters())
    average = [p.detach().clone() for p in params]
    adam = torch.optim.Adam(params, lr=2e-4)
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    alpha_bar = scheduler.alphas_cumprod

    def train():
        model.train()
        x = torch.zeros(BATCH["train"], 3, 32, 32)
        n = torch.randint(0, 1000, (BATCH["train"],))
        noise = torch.randn_like(x)
        scale = alpha_bar[n].view(-1, 1, 1, 1)
        loss = (run(scale.sqrt() * x + (1 - scale).sqrt() * noise, n).sample - noise).square()
        adam.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1e-4)

    @torch.no_grad()
    def forward():
        model.eval()
        run(torch.ones(BATCH["forward"], 3, 32, 32), torch.full((BATCH["forward"],), 10))

    @torch.no_grad()
    def ddim():
        model.eval()
        scheduler.set_timesteps(50)
        x = torch.randn(BATCH["ddim"], 3, 32, 32)
        for n in scheduler.timesteps:
            x = scheduler.step(run(x, n.expand(len(x))).sample, n, x).prev_sample

    return {"train": train, "forward": forward, "ddim": ddim}


COMPARISON = Comparison(
    contenders={
        "genzoo": genzoo_calls,
        "torch_eager": lambda: torch_calls(False),
        "torch_compiled": lambda: torch_calls(True),
    },
    measures={name: (calls, {"batch": BATCH[name]}) for name, calls in CALLS.items()},
)


if __name__ == "__main__":
    run(COMPARISON, __doc__, rounds=6)
