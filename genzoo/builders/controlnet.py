"""The settings of ControlNets, which build the system."""

from dataclasses import dataclass, replace
from typing import Annotated

import jax
from ml_collections import FrozenConfigDict

from genzoo.builders import sampling
from genzoo.builders.conditions import CONTROL, conditions_and_entries
from genzoo.builders.denoising import repeated_times
from genzoo.builders.rows import Parts, Stage
from genzoo.builders.sampling import ADAPTIVE, STEERING, DiffusionSampling
from genzoo.core import tree
from genzoo.core.bounds import Between, Each, Entries, without_effect
from genzoo.core.conditions import Entry
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.families.denoising import Denoising, LearnedSchedule
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule, TableSchedule
from genzoo.nets.interface import Steerable
from genzoo.settings import RAW
from genzoo.systems import controlnet

STAGES = {
    controlnet.BASE: Stage(
        capability=Denoising,
        called="a denoising model of the same data with a U-Net",
        same_text=True,
        same_conditions=True,
    ),
    controlnet.TUNED: Stage(
        capability=Denoising,
        called="a run that started from the base",
        role="sampling",
        same_text=True,
        like=controlnet.BASE,
    ),
    **STEERING,
}
"""The models of other runs that a ControlNet uses."""


@dataclass(frozen=True, kw_only=True)
class ControlSampling(DiffusionSampling):
    """The keys of `sample` for a ControlNet."""

    method: sampling.MethodName = "ddim"
    steps: sampling.Steps = 50
    grid: sampling.GridName = "trailing"
    clip: sampling.ClippingName = "none"
    control_scale: Annotated[
        float, Between(-100, 100), "Factor of what the branches add; 0 gives the base."
    ] = 1.0
    control_guess: Annotated[
        bool,
        "Whether the branches add less to finer maps (by a factor of 0.825 from each to the one "
        "before), and guidance leaves out the hints along with the other conditions.",
    ] = False
    control_low: Annotated[float, Between(0, 1), "Earliest time t at which the branches act."] = 0.0
    control_high: Annotated[float, Between(0, 1), "Latest time t at which the branches act."] = 1.0
    tuned: Annotated[
        str, "Workdir of a run that started from the base and takes its place under the branches."
    ] = ""
    tuned_weights: Annotated[str, "An average of that run, or raw."] = RAW

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = super().problems(config)
        if not self.tuned:
            why, remedy = "without sample.tuned", "name a workdir there"
            problems += without_effect(self, "sample", ("tuned_weights",), why, remedy)
        if self.control_low > self.control_high:
            problems.append(
                f"sample.control_low = {self.control_low} and sample.control_high = "
                f"{self.control_high} must be times with 0 <= low <= high <= 1."
            )
        return problems

    @property
    def control(self) -> controlnet.Control:
        """How the branches act."""
        return controlnet.Control(
            scale=self.control_scale,
            decay=controlnet.GUESS_DECAY if self.control_guess else 1.0,
            low=self.control_low,
            high=self.control_high,
            guess=self.control_guess,
        )


@dataclass(frozen=True, kw_only=True)
class ControlNetSettings:
    """A ControlNet: systems/controlnet.py."""

    hint_widths: Annotated[
        tuple[int, ...],
        Entries(1, 16),
        Each(Between(1, 65_536)),
        "Channels of the network of the hint. Each but the first may halve a hint that is larger "
        "than the first map of the U-Net.",
    ] = (16, 32, 96, 256)
    decoder: Annotated[
        bool, "Whether a copy of the base's decoder is trained along (sd_locked = False)."
    ] = False

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        if any(own.get("way") == CONTROL for own in config.conditions.values()):
            return []
        return [
            "A controlnet needs a hint, which is a condition with way = 'control': for instance "
            "conditions.hint = dict(of='x', transform='outline', way='control')."
        ]

    def build(self, parts: Parts) -> Family:
        """Builds the system. Raises UserError if the base does not fit."""
        base, sample = parts.frozen[controlnet.BASE], parts.sample
        network, schedule = base.denoiser.network, base.schedule
        conditions, entries = conditions_and_entries(parts.conditions, parts.fields, parts.frozen)
        hints = {name: entry for name, entry in entries.items() if entry.way == CONTROL}
        if problems := _misfits(base, entries) + _time_problems(sample, schedule):
            raise UserError(*problems)
        table = schedule if isinstance(schedule, TableSchedule) else None
        variance = getattr(base, "variance", gaussian.FIXED_SMALL)
        return controlnet.ControlNet(
            base=replace(
                base,
                sampler=sampling.sampler(sample, variance, table=table),
                clipping=sampling.CLIPPINGS[sample.clip],
            ),
            branches={name: network.branch(self.hint_widths) for name in hints},
            conditions=conditions,
            decoder=self.decoder,
            guidance=sampling.guidance(sample),
            control=sample.control,
        )

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of what is trained. network: of no network."""
        base = parts.frozen[controlnet.BASE]
        steered = base.denoiser.network
        _, entries = conditions_and_entries(parts.conditions, parts.fields, parts.frozen)
        sizes = [
            steered.branch_size(parts.shape, entry.size, self.hint_widths)
            for entry in entries.values()
            if entry.way == CONTROL
        ]
        more = steered.decoder_params(parts.shape) if self.decoder else 0
        if isinstance(base.schedule, LearnedSchedule):
            more += tree.count(jax.eval_shape(base.schedule.init, jax.random.key(0)))
        return replace(
            network,
            params=sum(each.params for each in sizes) + more,
            layer=max(each.layer for each in sizes),
        )


def _misfits(base: Denoising, entries: dict[str, Entry]) -> list[str]:
    """Why the base cannot be steered, or not with these conditions."""
    network = base.denoiser.network
    if not isinstance(network, Steerable):
        return [
            "frozen.base.workdir holds a model without a U-Net: name a run with network.name = "
            "'unet', 'song_unet' or 'vdm_unet'."
        ]
    if getattr(base, "paired", False):
        return [
            "frozen.base.workdir holds a model that was trained with family.paired = True, whose "
            "noise would have to be paired with the hints too: name one with paired = False."
        ]
    ours = {name: entry for name, entry in entries.items() if entry.way != CONTROL}
    problems = [
        f"conditions.{name} is a condition of the base, but not of this run: add it."
        for name in base.conditions
        if name not in ours
    ]
    for name, entry in ours.items():
        if name not in base.conditions:
            problems.append(
                f"conditions.{name} is not a condition of the base: leave it out, or set its way "
                f"to {CONTROL!r} for a branch of its own."
            )
        elif entry != network.entries[name]:
            problems.append(
                f"conditions.{name} has other classes or sizes in the base: use the same data and "
                "the same settings in both."
            )
    return problems


def _time_problems(sample: ControlSampling, schedule: Schedule) -> list[str]:
    """Settings of the sampler that do not suit the schedule of the base."""
    if isinstance(schedule, TableSchedule):
        return repeated_times(sample, schedule)
    problems = without_effect(
        sample, "sample", ("steps_offset",), "in continuous time", "sample a model with a table"
    )
    if sample.steps < 1 and sample.method != ADAPTIVE:
        problems.append(
            f"sample.steps = {sample.steps} must be at least 1: the base is in continuous time and "
            "has no table whose steps could all be taken."
        )
    if problems or not isinstance(schedule, Schedule):  # a learned one is known after training
        return problems
    return repeated_times(sample, schedule)
