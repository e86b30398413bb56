"""Writes the trajectories of diffusers' schedulers on an exact denoiser, for
tests/samplers/test_against_diffusers.py.

Not part of the suite; needs torch and diffusers (written with 2.13.0 and 0.42.1):

    python tests/peers/make_solver_fixture.py tests/samplers/fixtures/diffusers_solvers.npz

A scheduler's model is the exact posterior mean of a mixture of two Gaussians, at the exact sigma of
the scheduler's current step and in the form that it expects.

diffusers rounds its tables to float32, and in many steps the state too. Here the name `float32`
means float64 in the modules of the schedulers, whose code is otherwise unchanged, so that the
algorithms are compared to 1e-12 instead of 1e-5. A second run of all cases in float32 checks that
this changes nothing but rounding. Noise comes from a stored list, one draw per call.

An array "method/grid/steps" is [states, 1 + pixels]: sigma / alpha of a state (sigma on straight
paths), then the state in the scaling alpha x_0 + sigma eps. The first row is the start. In the last
row either the noise is 0 and the state is the data, or the noise is the table's first.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import diffusers
import numpy as np
import torch

warnings.filterwarnings("ignore", category=FutureWarning)
diffusers.logging.set_verbosity_error()

WEIGHTS, MEANS, STDS = ((0.3, 0.7), (-1.0, 0.5), (0.3, 0.2))  # as tests/oracles.py has them
NOISE = np.array([-1.7, -0.4, 0.6, 1.5])[:, None]
DRAWS = np.random.default_rng(0).normal(size=(20, *NOISE.shape))
SIGMA_MAX = 80.0  # of the variance-exploding form, unless the scheduler has its own


def denoise(x, alpha, sigma):
    """E[x_0 | x_t = x] of the mixture."""
    weights, means, stds = (torch.tensor(v, dtype=torch.float64) for v in (WEIGHTS, MEANS, STDS))
    variance = alpha**2 * stds**2 + sigma**2
    offset = x[..., None] - alpha * means
    share = torch.softmax(weights.log() - variance.log() / 2 - offset**2 / (2 * variance), dim=-1)
    return (share * (means + alpha * stds**2 / variance * offset)).sum(-1)


# --- the noise level of a scheduler's step, and the form of the prediction that it expects ---


def sigma_of_table(scheduler, t):
    """sigma / alpha of a scheduler that looks up its timestep in a table."""
    alpha_bar = scheduler.alphas_cumprod[t]
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def sigma_of_list(scheduler, t):
    """The sigma of a scheduler that counts its steps."""
    if scheduler.step_index is None:
        scheduler._init_step_index(t)
    between = hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order
    return (scheduler.sigmas_interpol if between else scheduler.sigmas)[scheduler.step_index]


def preserving(ratio):
    """(alpha, sigma) with alpha^2 + sigma^2 = 1 from sigma / alpha."""
    alpha = 1 / (1 + ratio**2) ** 0.5
    return alpha, ratio * alpha


def raw_network(scheduler, state, sigma, x_0, eps):
    """The network output that EDM's preconditioning maps to x_0."""
    skipped = scheduler.precondition_outputs(state, torch.zeros_like(state), sigma)
    return (x_0 - skipped) / scheduler.precondition_outputs(0, 1, sigma)


@dataclass(frozen=True, kw_only=True)
class Process:
    """scales: sigma of the scheduler -> (alpha, sigma). output: (scheduler, state, sigma, x_0, eps)
    -> what it expects of the model. sigma: see above. scaled: whether its state is x / alpha."""

    scales: Callable
    output: Callable = lambda scheduler, state, sigma, x_0, eps: eps
    sigma: Callable = sigma_of_list
    scaled: bool = False


TABLE = Process(scales=preserving, sigma=sigma_of_table)
LIST = Process(scales=preserving)
RATIO = Process(scales=preserving, scaled=True)
EXPLODING = Process(scales=lambda sigma: (torch.ones_like(sigma), sigma), output=raw_network)
STRAIGHT = Process(
    scales=lambda sigma: (1 - sigma, sigma),
    output=lambda scheduler, state, sigma, x_0, eps: eps - x_0,
)

# --- the indices, from the start, of the states after whole steps: calls -> indices ---


def every(calls):
    """All states."""
    return range(calls + 1)


def pairs(calls):
    """For methods that take a step in two calls, and the last step in one."""
    return [*range(0, calls, 2), calls]


def after_trial(calls):
    """For PNDM, whose first call gives a trial state."""
    return [0, *range(2, calls + 1)]


def after_four(calls):
    """For PNDM with its Runge-Kutta start: three steps of four calls each."""
    return [0, 4, 8, *range(12, calls + 1)]


def groups(size, *, to_data):
    """For single-step methods, which spread a step over several calls. The last call goes to the
    data, or from the last sigma to itself."""
    return lambda calls: [*range(0, calls, size), *[calls] * to_data]


# --- the cases ---


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scheduler, with the options of its constructor, of its set_timesteps and of its step.
    published: whether single steps of order 3 are those of the paper (see `follow`)."""

    scheduler: type
    process: Process
    options: Mapping
    times: Mapping
    step: Mapping = field(default_factory=dict)
    stops: Callable = every
    published: bool = False


def case_of(name, process, spacing="", count=None, *, times=None, **options):
    """The case of a scheduler by name; the remaining options are the scheduler's own."""
    of_case = {key: options.pop(key) for key in ("step", "stops", "published") if key in options}
    if spacing:
        # Not every scheduler has these two as defaults.
        options |= dict(timestep_spacing=spacing, beta_start=1e-4, beta_end=0.02)
    return Case(
        scheduler=getattr(diffusers, f"{name}Scheduler"),
        process=process,
        options=options,
        times=times or {"num_inference_steps": count},
        **of_case,
    )


STEPS = (10, 20)
FREE = {"clip_sample": False}
TO_SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
CHURN = {"s_churn": 4.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.01}


def cases() -> Iterable[tuple[str, Case]]:
    """(name, case) of all cases."""
    for count in STEPS:
        yield from _on_trailing_steps(count)
        yield from _on_other_processes(count)
    yield from _on_other_grids()
    yield from _single_steps()


def _on_trailing_steps(count):
    def case(method, name, process, **options):
        return f"{method}/trailing/{count}", case_of(name, process, "trailing", count, **options)

    yield case("ddim", "DDIM", TABLE, **FREE)
    yield case("ddim_eta", "DDIM", TABLE, step={"eta": 0.7}, **FREE)
    pndm = dict(skip_prk_steps=True, set_alpha_to_one=True, stops=after_trial)
    yield case("pndm", "PNDM", TABLE, **pndm)
    whole = dict(skip_prk_steps=False, set_alpha_to_one=True, stops=after_four)
    yield case("f_pndm", "PNDM", TABLE, **whole)
    yield case("euler", "EulerDiscrete", RATIO)
    yield case("euler_churn", "EulerDiscrete", RATIO, step=CHURN)
    yield case("euler_ancestral", "EulerAncestralDiscrete", RATIO)
    yield case("heun", "HeunDiscrete", RATIO, stops=pairs)
    yield case("dpm2", "KDPM2Discrete", RATIO, stops=pairs)
    yield case("lms", "LMSDiscrete", RATIO)
    yield case("deis_logsnr", "DEISMultistep", LIST, solver_order=3)
    multistep = dict(name="DPMSolverMultistep", process=LIST)
    of_noise = dict(algorithm_type="dpmsolver", **TO_SIGMA_MIN)
    yield case("dpmpp_2m", **multistep)
    yield case("dpmpp_2m_heun", **multistep, solver_type="heun")
    yield case("dpmpp_3m_published", **multistep, solver_order=3)
    yield case("dpm_2m", **multistep, **of_noise)
    yield case("dpm_3m_published", **multistep, **of_noise, solver_order=3)
    yield case("dpmpp_2m_sde", **multistep, algorithm_type="sde-dpmsolver++")
    noisy = dict(algorithm_type="sde-dpmsolver", **TO_SIGMA_MIN)
    yield case("dpm_2m_sde", **multistep, **noisy)
    yield case("dpm_2m_sde_heun", **multistep, **noisy, solver_type="heun")
    unipc = dict(name="UniPCMultistep", process=LIST)
    yield case("unipc_2", **unipc, solver_order=2)
    yield case("unipc_3", **unipc, solver_order=3)
    # These two multiply an infinity by 0 on the way to 0.
    yield case("unipc_3_bh1", **unipc, **TO_SIGMA_MIN, solver_order=3, solver_type="bh1")
    yield case("unipc_3_noise", **unipc, **TO_SIGMA_MIN, solver_order=3, predict_x0=False)


def _on_other_processes(count):
    def case(method, name, process, **options):
        return f"{method}/{count}", case_of(name, process, "", count, **options)

    edm = dict(process=EXPLODING, sigma_max=SIGMA_MAX)
    yield case("euler/exploding", "EDMEuler", **edm)
    yield case("dpmpp_3m_published/exploding", "EDMDPMSolverMultistep", solver_order=3, **edm)
    yield case("euler/straight", "FlowMatchEulerDiscrete", STRAIGHT)
    times = {"sigmas": np.linspace(1, 1 / count, count)}
    yield case("euler/straight_shifted", "FlowMatchEulerDiscrete", STRAIGHT, times=times, shift=3.0)
    yield case("heun/straight", "FlowMatchHeunDiscrete", STRAIGHT, stops=pairs)
    flow = dict(
        process=STRAIGHT, solver_order=3, prediction_type="flow_prediction", use_flow_sigmas=True
    )
    yield case("dpmpp_3m_published/straight_inside", "DPMSolverMultistep", **flow)
    yield case("unipc_3/straight_inside", "UniPCMultistep", **flow)


def _on_other_grids():
    def case(method, name, process, spacing, count, **options):
        grid = "karras" if "use_karras_sigmas" in options else spacing
        return f"{method}/{grid}/{count}", case_of(name, process, spacing, count, **options)

    yield case("ancestral", "DDPM", TABLE, "leading", 10, **FREE)
    yield case("ancestral", "DDPM", TABLE, "linspace", 20, **FREE)
    large = {"variance_type": "fixed_large"}
    yield case("ancestral_large", "DDPM", TABLE, "leading", 10, **large, **FREE)
    yield case("ddim", "DDIM", TABLE, "leading", 10, **FREE)
    # As in Stable Diffusion: one step up, and down to the first step of the table.
    stable = dict(steps_offset=1, set_alpha_to_one=False, **FREE)
    yield "ddim/leading_offset/10", case_of("DDIM", TABLE, "leading", 10, **stable)
    yield case("dpmpp_2m", "DPMSolverMultistep", LIST, "leading", 10, steps_offset=1)
    yield case("euler", "EulerDiscrete", RATIO, "linspace", 20)
    yield case("dpmpp_2m", "DPMSolverMultistep", LIST, "linspace", 10)
    karras = {"use_karras_sigmas": True}
    yield case("heun", "HeunDiscrete", RATIO, "linspace", 10, stops=pairs, **karras)
    yield case("dpmpp_2m", "DPMSolverMultistep", LIST, "linspace", 10, **karras)
    yield case("unipc_3", "UniPCMultistep", LIST, "linspace", 10, solver_order=3, **karras)


def _single_steps():
    # Evenly spaced in lambda, so that the inner calls of a group are at 1/2, or at 1/3 and 2/3.
    for order, count in ((2, 11), (2, 21), (3, 10), (3, 22)):
        shared = dict(
            name="DPMSolverSinglestep", process=LIST, count=count, solver_order=order,
            lower_order_final=True, use_exponential_sigmas=True, published=order == 3,
        )  # fmt: skip
        where = f"exponential/{count // order}"
        yield f"dpmpp_{order}s/{where}", case_of(**shared, stops=groups(order, to_data=True))
        of_noise = dict(algorithm_type="dpmsolver", **TO_SIGMA_MIN)
        stops = groups(order, to_data=False)
        yield f"dpm_{order}/{where}", case_of(**shared, **of_noise, stops=stops)


# --- running them ---


def churned(process, x, sigma, steps, drawn):
    """(x_t, alpha, sigma) where k-diffusion evaluates the model: after the noise was increased. The
    Euler scheduler of diffusers increases it too, but after its pipeline evaluated the model."""
    inside = CHURN["s_tmin"] <= sigma <= CHURN["s_tmax"]
    gamma = min(CHURN["s_churn"] / steps, 2**0.5 - 1) if inside else 0.0
    raised = sigma * (gamma + 1)
    x = x + drawn * CHURN["s_noise"] * (raised**2 - sigma**2) ** 0.5
    alpha, noise = process.scales(raised)
    return alpha * x, alpha, noise


def follow(case: Case) -> np.ndarray:
    """The trajectory of one case, [states, 1 + pixels]."""
    scheduler, process = case.scheduler(**case.options), case.process
    scheduler.set_timesteps(**case.times)
    states, sigmas, x = [], [], torch.from_numpy(NOISE)
    for number, t in enumerate(scheduler.timesteps):
        drawn = torch.tensor(DRAWS[number % len(DRAWS)])
        sys.modules[case.scheduler.__module__].randn_tensor = lambda *_, drawn=drawn, **__: drawn
        sigma = process.sigma(scheduler, t)
        alpha, noise = process.scales(sigma)
        if not states:
            x = x * (SIGMA_MAX if process is EXPLODING else 1 / alpha if process.scaled else 1)
            states.append(x)
        sigmas.append(sigma)
        scheduler.is_scale_input_called = True  # as a pipeline would have done
        x_t = scheduler.scale_model_input(x, t) if process.scaled else x
        if "s_churn" in case.step:
            x_t, alpha, noise = churned(process, x, sigma, len(scheduler.timesteps), drawn)
        x_0 = denoise(x_t, alpha, noise)
        output = process.output(scheduler, x, sigma, x_0, (x_t - alpha * x_0) / noise)
        if case.published:
            # diffusers uses phi_1 / 2 ("midpoint") or phi_2 ("heun") in both stages. DPM-Solver-3
            # uses phi_2 in the inner stage and only the later difference, "midpoint", in the outer.
            order = scheduler.order_list[scheduler.step_index]
            scheduler.register_to_config(solver_type="heun" if order == 2 else "midpoint")
        x = scheduler.step(output, t, x, return_dict=False, **case.step)[0]
        states.append(x)
    if hasattr(scheduler, "sigmas"):
        sigmas.append(scheduler.sigmas[-1])
    else:  # for those that look it up in the table, 1 where they go to the data
        last = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0))
        sigmas.append(((1 - last) / last) ** 0.5)
    stops = [*case.stops(len(states) - 1)]
    sigmas = torch.stack(sigmas)[stops].double()
    kept = torch.stack(states)[stops, ..., 0].double()
    scale = process.scales(sigmas)[0][:, None] if process.scaled else 1
    return torch.cat([sigmas[:, None], scale * kept], dim=1).numpy()


class InDouble:
    """A torch module in which float32 means float64."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, "float64" if name == "float32" else name)


def computed(double: bool) -> dict[str, np.ndarray]:
    """The trajectory of every case."""
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    trajectories = {}
    for name, case in cases():
        used = sys.modules[case.scheduler.__module__]
        used.torch, used.np = map(InDouble, (torch, np)) if double else (torch, np)
        trajectories[name] = follow(case)
    return trajectories


def main(target):
    saved, rounded = computed(double=True), computed(double=False)
    for name, states in saved.items():
        apart = np.abs(states - rounded[name])[:, 1:] / np.abs(states[:, 1:]).max(0)
        print(f"{name:40s} {len(states) - 1:3d} steps, in float32 {apart.max():.0e} away")
        if not apart.max() < 1e-4:
            raise SystemExit(f"{name}: more than the rounding has changed")
    np.savez_compressed(target, draws=DRAWS, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
