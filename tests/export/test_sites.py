"""Which norms become adaptable, and what happens to the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Graph
from acclimate.export.passes.sites import SITE, Adaptable, at_source, with_sites
from acclimate.export.session import first_output, session
from acclimate.export.trace import Preprocessing, traced
from tests.export.nets import pictures, tiny_net


def test_every_norm_is_a_site_in_graph_order(tiny: Adaptable) -> None:
    assert [site.name for site in tiny.sites] == ["norm", "norm1", "norm2", "block.1"]
    assert [site.channels for site in tiny.sites] == [4, 4, 8, 8]
    assert [node.attributes["site"] for node in tiny.graph.nodes if node.op == SITE] == [0, 1, 2, 3]
    assert tiny.parameters.size == tiny.statistics.size == 48


def test_theta_and_stats_hold_the_module_s_values(tiny: Adaptable) -> None:
    state = tiny_net().state_dict()
    rows = tiny.parameters.unpack(tiny.theta) | tiny.statistics.unpack(tiny.stats)
    for name, row in rows.items():
        np.testing.assert_array_equal(row, state[name].numpy(), err_msg=name)
    assert set(rows) == {name for name in state if "norm" in name or "block.1" in name} - {
        name for name in state if name.endswith("num_batches_tracked")
    }


def test_norms_that_match_no_pattern_are_folded(tiny_graph: Graph) -> None:
    some = with_sites(tiny_graph, ["norm?", "blo*"])
    assert [site.name for site in some.sites] == ["norm1", "norm2", "block.1"]
    assert not any(node.op == "BatchNormalization" for node in some.graph.nodes)
    assert sum(node.op == "Conv" for node in some.graph.nodes) == sum(node.op == "Conv" for node in tiny_graph.nodes)
    inputs = pictures(5)
    np.testing.assert_allclose(
        first_output(session(at_source(some)), inputs), first_output(session(tiny_graph), inputs), rtol=1e-4, atol=1e-5
    )


def test_source_graph_is_the_traced_one(tiny: Adaptable, tiny_graph: Graph) -> None:
    inputs = pictures(5)
    np.testing.assert_array_equal(
        first_output(session(at_source(tiny)), inputs), first_output(session(tiny_graph), inputs)
    )


def test_no_match_names_what_there_is(tiny_graph: Graph) -> None:
    with pytest.raises(UnsupportedModel, match=r"no adaptable norm matches \['bn\*'\].*'norm', 'norm1'"):
        with_sites(tiny_graph, ["bn*"])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm(self.conv(x)))).mean((2, 3))


def test_a_norm_used_twice_is_refused() -> None:
    torch.manual_seed(0)
    graph = traced(Twice(), Preprocessing(), (1, 4, 4))
    with pytest.raises(UnsupportedModel, match="'norm' is applied twice"):
        with_sites(graph)
