"""The tiny network traced once for all tests of the exporter."""

from __future__ import annotations

import pytest

from acclimate.export.graph import Graph
from acclimate.export.passes.sites import Adaptable, with_sites
from acclimate.export.trace import traced
from tests.export.nets import PREPROCESSING, SHAPE, tiny_net


@pytest.fixture(scope="session")
def tiny_graph() -> Graph:
    return traced(tiny_net(), PREPROCESSING, SHAPE)


@pytest.fixture(scope="session")
def tiny(tiny_graph: Graph) -> Adaptable:
    return with_sites(tiny_graph)
