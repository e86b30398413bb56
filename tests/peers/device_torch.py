"""diffusers' side of device_speed.py, with the usual optimisations of torch.

    python tests/peers/device_torch.py CASE torch | torch_graphs SETTINGS

SETTINGS: the resolved config of genzoo's case as JSON, with the shape and the classes of its data;
the network is built from it. The work is that of genzoo: a batch gathered from a data set on the
device, randomly mirrored and noised; the network; the loss; the gradient, clipped by its norm;
Adam; one average of the params. Everything up to the loss is compiled, autocast is bfloat16,
convolutions are channels-last, Adam and the average are fused, float32 products may use
TensorFloat-32, and cuDNN benchmarks its algorithms. The sampler runs the network in bfloat16.
"""

import copy
import json
import sys
import time

import torch
from device_cases import twin
from device_profile import of_torch
from device_report import DRY
from device_worker import serve
from diffusers import DDIMScheduler, UNet2DModel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODES = {"torch": None, "torch_graphs": "reduce-overhead"}
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


class Torch:
    """The contender."""

    def __init__(self, contender: str, settings: dict):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        self._mode, self._settings, self._calls = MODES[contender], settings, {}
        family, side = settings["family"], settings["shape"][0]
        self._classes = settings["classes"] if settings["conditions"] else 0
        self._learned = family["variance"].startswith("learned")
        arguments = twin(settings["network"], side, self._classes, self._learned)
        self._shape = (3, side, side)
        self._model = UNet2DModel(**arguments).to(DEVICE, memory_format=torch.channels_last)
        self._params = list(self._model.parameters())
        self._average = [p.detach().clone() for p in self._params]
        self._adam = torch.optim.Adam(self._params, lr=2e-4, fused=True)
        table = DDIMScheduler(beta_schedule=SCHEDULES[family["schedule"]])
        self._alpha_bar = table.alphas_cumprod.to(DEVICE)

    def compile(self, measure: str) -> dict:
        """Compiles by calling, twice so that a CUDA graph is recorded."""
        kind, size = measure.split("_")
        self._calls[measure] = {"train": self._step, "ddim": self._sampler}[kind](int(size))
        start = time.perf_counter()
        self._call(measure, 1)
        first = time.perf_counter() - start
        seconds = self._call(measure, 3)
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        return {
            "compile_seconds": round(first - seconds, 2),
            "parameters": sum(p.numel() for p in self._params),
        }

    def burst(self, measure: str, calls: str) -> dict:
        """Seconds per call over several calls, which the device may overlap as in a run."""
        seconds = self._call(measure, int(calls))
        peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None
        return {"seconds": seconds, "peak_memory_bytes": peak}

    def profile(self, measure: str) -> dict:
        """The kernels of three calls, sorted by time."""
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] * (DEVICE == "cuda")
        with torch.profiler.profile(activities=kinds) as profiler:
            self._call(measure, 3)
        return of_torch(profiler, calls=3)

    def _call(self, measure: str, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            torch.compiler.cudagraph_mark_step_begin()
            self._calls[measure]()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    def _compiled(self, function):
        return function if DRY else torch.compile(function, dynamic=False, mode=self._mode)

    def _labels(self, size: int):
        return torch.randint(0, self._classes, (size,), device=DEVICE) if self._classes else None

    def _step(self, size: int):
        held = torch.randint(0, 256, (2 * size, *self._shape), dtype=torch.uint8, device=DEVICE)
        held = held.to(memory_format=torch.channels_last)
        model, mirrored = self._model.train(), self._settings["data"]["flip"]

        def loss(rows, n, labels):
            x = held[rows].float() / 127.5 - 1
            if mirrored:
                coin = torch.rand(size, 1, 1, 1, device=DEVICE) < 0.5
                x = torch.where(coin, x.flip(3), x)
            noise = torch.randn_like(x)
            scale = self._alpha_bar[n].view(-1, 1, 1, 1)
            noisy = scale.sqrt() * x + (1 - scale).sqrt() * noise
            with torch.autocast(DEVICE, torch.bfloat16):
                out = model(noisy, n, class_labels=labels).sample
            out = out.float()
            if not self._learned:
                return (out - noise).square().mean()
            out, v = out.chunk(2, 1)
            kl = self._kl(x, noisy, out.detach(), v, n)
            return (out - noise).square().mean() + kl.mean()

        loss = self._compiled(loss)

        def step():
            rows = torch.randint(0, 2 * size, (size,), device=DEVICE)
            n = torch.randint(0, 1000, (size,), device=DEVICE)
            loss(rows, n, self._labels(size)).backward()
            torch.nn.utils.clip_grad_norm_(self._params, 1.0, foreach=True)
            self._adam.step()
            self._adam.zero_grad(set_to_none=True)
            with torch.no_grad():
                torch._foreach_lerp_(self._average, self._params, 1e-4)

        return step

    def _kl(self, x, noisy, noise, v, n):
        """The term of the bound that trains the variance (Nichol & Dhariwal 2021), at steps above
        the first, in nats over 1,000: half the squared difference and the ratio of variances."""
        here = self._alpha_bar[n].view(-1, 1, 1, 1)
        before = self._alpha_bar[(n - 1).clamp(min=0)].view(-1, 1, 1, 1)
        beta = 1 - here / before
        beta = beta.clamp(min=1e-5)
        posterior = beta * (1 - before) / (1 - here) + 1e-8
        known = (noisy - (1 - here).sqrt() * noise) / here.sqrt()
        apart = before.sqrt() * beta / (1 - here) * (x - known)
        share = (v + 1) / 2
        log_variance = share * beta.log() + (1 - share) * posterior.log()
        ratio = (posterior.log() - log_variance).exp()
        squared = apart.square() * (-log_variance).exp()
        return 0.5 * (log_variance - posterior.log() - 1 + ratio + squared)

    def _sampler(self, size: int):
        half = copy.deepcopy(self._model).to(torch.bfloat16).eval().requires_grad_(False)
        half = half.to(memory_format=torch.channels_last)
        steps = self._settings["sample"]["steps"]
        times = torch.arange(0, 1000, 1000 // steps, device=DEVICE).flip(0)
        levels = torch.cat([self._alpha_bar[times], torch.ones(1, device=DEVICE)])

        def one(x, n, here, after, labels):
            noise = half(x.bfloat16(), n.expand(size), class_labels=labels).sample
            noise = noise.float()[:, : self._shape[0]]
            known = (x - (1 - here).sqrt() * noise) / here.sqrt()
            return after.sqrt() * known + (1 - after).sqrt() * noise

        one = self._compiled(one)

        @torch.no_grad()
        def sample():
            x = torch.randn(size, *self._shape, device=DEVICE)
            x = x.to(memory_format=torch.channels_last)
            labels = self._labels(size)
            for i, n in enumerate(times):
                torch.compiler.cudagraph_mark_step_begin()
                x = one(x.clone(), n, levels[i], levels[i + 1], labels)
            return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()

        return sample


if __name__ == "__main__":
    serve(Torch(sys.argv[2], json.loads(sys.argv[3])))
