"""What the tests share in which a node is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.crash_scene import PACS_CONTEXTS, Scene, killed_node
from tests.support.scripted_pacs import scripted_pacs


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scripted_pacs(contexts=PACS_CONTEXTS) as pacs:
        node = killed_node(tmp_path / "node", pacs)
        try:
            yield Scene(node, pacs)
        finally:
            if node.process is not None and node.process.poll() is None:
                node.kill()
