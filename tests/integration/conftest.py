"""Who signs certificates, for the tests of a module."""

from __future__ import annotations

import pytest

from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs what the node trusts."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs what the node does not trust, unless it is told to."""
    return Authority(tmp_path_factory.mktemp("other"), "Somebody Else's CA")
