"""Which models there are, and how another package adds one."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from models import registry
from models.base import ModelCard
from tests.support.made_models import install


def test_the_built_in_models_are_listed() -> None:
    assert {"lungs", "series-quality"} <= set(registry.names())


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_each_built_in_model_loads_and_has_a_whole_card(name: str) -> None:
    model = registry.load(name)
    assert model.card.name == name
    for field in ("version", "title", "intended_use", "limits", "inputs", "outputs", "evidence", "licence"):
        assert getattr(model.card, field), field
    assert "not for diagnosis" in model.card.limits


def test_cards_are_in_the_order_of_names() -> None:
    cards = registry.cards()
    assert all(isinstance(card, ModelCard) for card in cards)
    assert [card.name for card in cards] == registry.names()


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(registry.UnknownModel, match="no model 'lung'; there are lungs"):
        registry.load("lung")


def test_listing_names_imports_no_model() -> None:
    script = (
        "import sys; from models import registry; registry.names();"
        "print([m for m in ('SimpleITK', 'scipy', 'skimage') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_package_adds_a_model_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"brightness": "Brightness"})
    assert "brightness" in registry.names()
    assert registry.load("brightness").card.title == "A model for tests"


@pytest.mark.parametrize(
    ("name", "factory", "message"),
    [
        ("lungs", "Brightness", "is built in, and made-models claims the name too"),
        ("other", "Brightness", "calls itself 'brightness'"),
        ("brightness", "absent", "does not exist"),
        ("brightness", "CARD", "cannot be called"),
        ("brightness", "Cardless", "no card"),
        ("brightness", "Needy", "needs 'everything'"),
    ],
)
def test_what_keeps_not_to_the_contract_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, factory: str, message: str
) -> None:
    install(tmp_path, monkeypatch, {name: factory})
    with pytest.raises(registry.UnusableModel, match=message):
        registry.load(name)


def test_two_packages_that_claim_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "one", monkeypatch, {"brightness": "Brightness"})
    install(tmp_path / "two", monkeypatch, {"brightness": "Sleeper"}, package="others")
    with pytest.raises(registry.UnusableModel, match="claimed by made-models and others"):
        registry.load("brightness")


def test_models_never_point_upwards() -> None:
    for name in registry.BUILT_IN.values():
        assert importlib.import_module(name.partition(":")[0]).__name__.startswith("models.")
