"""The benchmark of scaling counts the collectives in HLO, and models the time that they take."""

import pytest

from benchmarks.scaling import Cluster, Collective, Link, efficiency, exchange_seconds, parse

HLO = """
  %a = (f32[64]{0}, f32[8,2]{1,0}) all-reduce(%x, %y), replica_groups=[1,8]<=[8], to_apply=%add
  %b = bf16[10]{0} all-gather(%x), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}
  %c = f32[] all-reduce-start(%x), replica_groups={}
  %d = f32[] all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}
  %e = f32[] add(%all-reduce.1, %c)
"""


def test_collectives_are_counted_with_their_bytes_and_groups() -> None:
    assert parse(HLO, 8) == [
        Collective("all-reduce", 4 * 80, 8),
        Collective("all-gather", 2 * 10, 2),
        Collective("all-reduce", 4, 8),
    ]


def cluster(*links: Link) -> Cluster:
    return Cluster(images_per_second=100, batch=100, launch=1e-3, links=links)


def test_an_exchange_takes_its_latency_and_its_bytes() -> None:
    node, between = Link(8, 100, 1e-4), Link(0, 10, 1e-2)
    within = exchange_seconds(Collective("all-reduce", 100, 4), cluster(node, between))
    assert within == pytest.approx(1e-3 + 2 * 3 * 1e-4 + 2 * 3 / 4 * 100 / 100)
    across = exchange_seconds(Collective("all-reduce", 100, 32), cluster(node, between))
    # There are four nodes, and each device sends an eighth of the bytes between them.
    assert across == pytest.approx(
        1e-3 + 2 * 7 * 1e-4 + 2 * 7 / 8 * 1 + 2 * 2 * 1e-2 + 2 * 3 / 4 * (100 / 8) / 10
    )


def test_gradients_overlap_with_the_backward_pass_and_statistics_do_not() -> None:
    machine = cluster(Link(0, 2**21, 0.0))
    gradients = Collective("all-reduce", 2**21, 2)  # 1 s, as long as a step.
    assert efficiency([gradients], machine, overlap=False) == pytest.approx(1 / 2.001)
    assert efficiency([gradients], machine, overlap=True) == pytest.approx(1 / (1 + 1.001 - 2 / 3))
    statistics = [Collective("all-reduce", 4, 2)] * 50
    for overlap in (False, True):
        assert efficiency(statistics, machine, overlap=overlap) == pytest.approx(1 / 1.05, rel=1e-3)
