"""Options of a base and of the method around it have different names, so that none is lost between them."""

from __future__ import annotations

import pytest

from gnnkd import distillers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.options import of

PLAIN = [name for name, kind in distillers.graph_methods().items() if not kind.wraps]
WRAPPING = [name for name, kind in distillers.graph_methods().items() if kind.wraps]


@pytest.mark.parametrize("base", PLAIN)
@pytest.mark.parametrize("method", WRAPPING)
def test_a_base_has_no_option_of_a_method_around_it(method: str, base: str) -> None:
    mine = distillers.options(method, on_graphs=True).keys() | of(GeneratorSettings).keys()
    assert not mine & distillers.options(base, on_graphs=True).keys()


@pytest.mark.parametrize("method", sorted(distillers.graph_methods()))
def test_what_a_search_tries_is_an_option(method: str) -> None:
    assert distillers.graph_methods()[method].space.keys() <= distillers.options(method, on_graphs=True).keys()
