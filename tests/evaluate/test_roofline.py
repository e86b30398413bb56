"""Collectives counted in handwritten HLO, and the sides of the roofline computed by hand."""

import dataclasses

import pytest

from genzoo.runtime.collectives import Collective, collectives
from genzoo.runtime.roofline import estimate
from genzoo.runtime.topology import Chip

SUM = """
%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}
"""


def program(*lines: str, before: str = "", partitions: int = 8) -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f"HloModule made_up, num_partitions={partitions}\n{SUM}{before}\n"
        f"ENTRY %main (p: f32[4]) -> f32[4] {{\n{body}\n}}\n"
    )


def test_a_program_that_is_alone_says_nothing():
    assert collectives(program("ROOT %p = f32[4]{0} parameter(0)")) == {}


@pytest.mark.parametrize(
    ("line", "kind", "size", "sent"),
    [
        # 8 devices in one group: a ring sends 2 * 7/8 of the array
        ("%r = f32[16,4]{1,0:T(8,128)} all-reduce(%p), replica_groups={}, to_apply=%sum",
         "all-reduce", 256, 448),
        # two groups of four, as a list; a tuple of bf16, f32 and an index in a comment
        ("%r = (bf16[8]{0:T(4,128)(2,1)}, /*index=1*/f32[4]{0}) all-reduce(%p, %p), "
         "replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum", "all-reduce", 32, 48),
        # four groups of two, as shape and order
        ("%r = f32[] all-reduce(%p), replica_groups=[4,2]<=[8], to_apply=%sum",
         "all-reduce", 4, 4),
        # named axes of a mesh; and half of one
        ("%r = f32[4] all-reduce(%p), replica_groups=mesh['x'=2,'y'=4] {'y'}, to_apply=%sum",
         "all-reduce", 16, 24),
        ("%r = f32[4] all-reduce(%p), replica_groups=mesh['x'=8] {'x':(1)2}, to_apply=%sum",
         "all-reduce", 16, 16),
        # gathering counts the output, scattering the input
        ("%r = f32[32]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}",
         "all-gather", 128, 112),
        ("%r = f32[4]{0} reduce-scatter(%p), replica_groups=[1,8]<=[8], to_apply=%sum",
         "reduce-scatter", 128, 112),
        ("%r = u8[80] all-to-all(%p), replica_groups=[1,8]<=[8]", "all-to-all", 80, 70),
        ("%r = s4[10] collective-permute(%p), source_target_pairs={{0,1},{1,0}}",
         "collective-permute", 5, 5),
        # asynchronous: of the pair of input and output, the output
        ("%r = (f32[4]{0}, f32[32]{0}) all-gather-start(%p), replica_groups=[1,8]<=[8]",
         "all-gather", 128, 112),
        ("%r = ((f32[4], f32[2]{0}), (f32[32]{0}, f32[16])) all-gather-start(%p, %q), "
         "replica_groups=[1,8]<=[8]", "all-gather", 192, 168),
        ("%r = (f32[4], f32[4], u32[], u32[]) collective-permute-start(%p), "
         "source_target_pairs={{0,1}}", "collective-permute", 16, 16),
        ("%r = f32[4] all-reduce-start(%p), replica_groups={}, to_apply=%sum",
         "all-reduce", 16, 28),
    ],
)  # fmt: skip
def test_one_operation(line, kind, size, sent):
    found = collectives(program(line, "ROOT %p = f32[4]{0} parameter(0)"))
    assert found == {kind: Collective(count=1, bytes=size, sent=sent)}


def test_the_end_of_an_asynchronous_operation_is_not_another_one():
    found = collectives(
        program(
            "%s = f32[4] all-reduce-start(%p), replica_groups={}, to_apply=%sum",
            "ROOT %d = f32[4] all-reduce-done(%s)",
        )
    )
    assert found["all-reduce"].count == 1


def test_names_that_only_sound_like_it_do_not_count():
    line = '%all-reduce.7 = f32[4] add(%p, %p), metadata={op_name="jit(f)/all-reduce(x)"}'
    assert collectives(program(line)) == {}


LOOP = """
%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %r = f32[4] all-reduce(%x), replica_groups={}, to_apply=%sum
  %f = f32[4] fusion(%r), kind=kCustom, calls=%within
  ROOT %t = (s32[], f32[4]) tuple(%i, %f)
}

%within (q: f32[4]) -> f32[32] {
  ROOT %g = f32[32] all-gather(%q), replica_groups=[1,8]<=[8], dimensions={0}
}

%condition (s: (s32[], f32[4])) -> pred[] {
  %ten = s32[]{:T(128)} constant(10)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %ten), direction=LT
}

%outer (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %w = (s32[], f32[4]) while(%s), condition=%condition, body=%body
}
"""
WHILE = "%v = (s32[], f32[4]) while(%t), condition=%never, body=%outer"


@pytest.mark.parametrize(
    ("known", "passes"),
    [(', backend_config={"known_trip_count":{"n":"3"}}', 30), ("", 10)],
)
def test_an_operation_in_a_loop_counts_once_a_pass(known, passes):
    """Ten passes by the constant of the condition, inside a loop of three (if known) or one."""
    found = collectives(program(WHILE + known, before=LOOP))
    assert {kind: each.count for kind, each in found.items()} == {
        "all-reduce": passes, "all-gather": passes,
    }  # fmt: skip
    assert found["all-gather"].bytes == passes * 128
    assert found["all-reduce"].sent == passes * 28
    once = collectives(program(WHILE + known, before=LOOP), once=True)
    assert {kind: each.count for kind, each in once.items()} == {"all-reduce": 1, "all-gather": 1}


@pytest.mark.parametrize(
    "branches",
    ["branch_computations={%first, %second}",
     "true_computation=%second, false_computation=%first"],
)  # fmt: skip
def test_of_the_branches_of_a_condition_one_runs(branches):
    before = """
%first (q: f32[4]) -> f32[4] {
  %a = f32[4] all-reduce(%q), replica_groups={}, to_apply=%sum
  ROOT %b = f32[4] all-reduce(%a), replica_groups={}, to_apply=%sum
}

%second (q: f32[4]) -> f32[4] {
  ROOT %c = f32[32] all-gather(%q), replica_groups=[1,8]<=[8], dimensions={0}
}
"""
    text = program(f"%v = f32[4] conditional(%i, %p, %p), {branches}", before=before)
    assert collectives(text) == {"all-reduce": Collective(count=2, bytes=32, sent=56)}
    assert collectives(text, most=True) == {
        "all-gather": Collective(count=1, bytes=128, sent=112)
    }


def test_text_without_percent_signs():
    """As written by the compilers for GPUs and CPUs."""
    assert collectives(program(WHILE, before=LOOP).replace("%", "")) == collectives(
        program(WHILE, before=LOOP)
    )


CHIP = Chip(
    name="", memory_bytes=0, peak_flops=100.0, hbm_bandwidth=10.0, network_bandwidth=2.0, source=""
)


@pytest.mark.parametrize(
    ("flops", "accessed", "sent", "bound", "seconds", "share"),
    [
        (1000.0, 50.0, 10.0, "compute", 10.0, 1.0),
        (1000.0, 200.0, 10.0, "memory", 20.0, 0.5),
        (1000.0, 200.0, 80.0, "network", 40.0, 0.25),
        (1000.0, None, 10.0, "compute", 10.0, 1.0),
    ],
)
def test_the_slowest_side_bounds(flops, accessed, sent, bound, seconds, share):
    found = estimate(CHIP, flops=flops, bytes_accessed=accessed, bytes_sent=sent)
    assert found["bound_by"] == bound
    assert found["step_seconds"] == pytest.approx(seconds)
    assert found["share_of_peak"] == pytest.approx(share)


def test_a_faster_chip_is_no_slower():
    slow = estimate(CHIP, flops=1e3, bytes_accessed=1e3, bytes_sent=1e3)
    faster = dataclasses.replace(CHIP, network_bandwidth=4.0)
    fast = estimate(faster, flops=1e3, bytes_accessed=1e3, bytes_sent=1e3)
    assert fast["step_seconds"] == pytest.approx(slow["step_seconds"] / 2)
