"""The house keeps its arrows: handlers -> node -> models, and the narrower rules between rooms.

Every rule is checked on the real tree, and a planted violation of each proves that it can fail.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("handlers", "node", "models")
#: Each knows those behind it alone: what there is, how it is made, where it runs.
ROOMS_OF_MODELS = ("node.processes", "node.runners", "node.catalogue")
SQL_ROOMS = {
    "node/analysis_runs.py",
    "node/completion.py",
    "node/confirmations.py",
    "node/parking.py",
    "node/jobs/analysis_jobs.py",
    "node/jobs/listing.py",
    "node/jobs/queue.py",
}
SQL_PREFIXES = ("node/index/", "node/query/")
SQL = re.compile(r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET)\b", re.S)
BROAD_EXCEPT_ROOMS = {
    "handlers/boundary.py",
    "node/jobs/worker.py",
    "node/settling/child.py",
    "node/analysis/analyst.py",
    "node/__main__.py",
}
MODEL_LIBRARIES = {
    "numpy",
    "scipy",
    "skimage",
    "SimpleITK",
    "torch",
    "sklearn",
    "onnxruntime",
    "pywt",
    "models",
}
MODEL_STANDARD = {
    "__future__", "abc", "collections", "dataclasses", "enum", "functools", "importlib", "itertools",
    "math", "statistics", "typing",
}  # fmt: skip
UPPER_LAYER_INTERNALS = ("pynetdicom.pdu", "pynetdicom.acse", "pynetdicom.dul", "pynetdicom.presentation")


@dataclass(frozen=True)
class Import:
    file: str
    module: str
    only_for_types: bool


def sources(root: Path) -> Iterator[tuple[str, ast.Module, str]]:
    for layer in LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            text = path.read_text()
            yield path.relative_to(root).as_posix(), ast.parse(text), text


def imports(root: Path) -> Iterator[Import]:
    for file, tree, _ in sources(root):
        for_types = {
            id(inner)
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
            for inner in ast.walk(branch)
        }
        for statement in ast.walk(tree):
            if isinstance(statement, ast.Import):
                for name in statement.names:
                    yield Import(file, name.name, id(statement) in for_types)
            elif isinstance(statement, ast.ImportFrom):
                assert statement.level == 0, f"{file}: relative import"
                for name in statement.names:
                    yield Import(file, f"{statement.module}.{name.name}", id(statement) in for_types)


def starts(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def layers_point_one_way(root: Path) -> list[str]:
    faults = []
    for item in imports(root):
        back = item.file == "node/app.py" and starts(item.module, "handlers.bindings")
        up = item.file.startswith("node/") and starts(item.module, "handlers") and not back
        if up or (item.file.startswith("models/") and starts(item.module, "handlers", "node")):
            faults.append(f"{item.file} imports {item.module}")
    return faults


def handlers_do_no_later_work(root: Path) -> list[str]:
    later = ("node.tasks", *ROOMS_OF_MODELS, "node.results", "node.app", "node.demo", "node.cli", "models")
    return [
        f"{item.file} imports {item.module}"
        for item in imports(root)
        if item.file.startswith("handlers/") and starts(item.module, *later)
    ]


def rooms_of_models_point_one_way(root: Path) -> list[str]:
    faults = []
    for item in imports(root):
        room = ".".join(item.file.split("/")[:2])
        if room in ROOMS_OF_MODELS:
            before = ROOMS_OF_MODELS[: ROOMS_OF_MODELS.index(room)]
            if starts(item.module, *before, "node.tasks", "node.services", "node.index", "node.results"):
                faults.append(f"{item.file} imports {item.module}")
    return faults


def the_job_engine_knows_no_task(root: Path) -> list[str]:
    return [
        f"{item.file} imports {item.module}"
        for item in imports(root)
        if item.file.startswith("node/jobs/")
        and starts(item.module, "node.tasks", *ROOMS_OF_MODELS, "node.results", "models", "node.wire")
        and not item.only_for_types
    ]


def the_wire_knows_no_meaning(root: Path) -> list[str]:
    forbidden = (
        "node.ingest.ingest",
        "node.query.query",
        "node.index.index",
        "node.tasks",
        "node.transcode",
        "models",
    )
    return [
        f"{item.file} imports {item.module}"
        for item in imports(root)
        if item.file.startswith("node/wire/") and starts(item.module, *forbidden) and not item.only_for_types
    ]


def only_negotiation_touches_pynetdicom_inside(root: Path) -> list[str]:
    return [
        f"{item.file} imports {item.module}"
        for item in imports(root)
        if starts(item.module, *UPPER_LAYER_INTERNALS) and item.file != "node/wire/negotiation.py"
    ]


def models_are_pure(root: Path) -> list[str]:
    allowed = MODEL_LIBRARIES | MODEL_STANDARD
    return [
        f"{item.file} imports {item.module}"
        for item in imports(root)
        if item.file.startswith("models/") and item.module.split(".")[0] not in allowed
    ]


def only_the_app_knows_everything(root: Path) -> list[str]:
    return [
        f"{item.file} imports {item.module}"
        for item in imports(root)
        if starts(item.module, "node.app")
        and not item.file.startswith(("node/cli/", "node/demo/", "node/__main__.py", "node/app.py"))
    ]


def sql_lives_in_its_rooms(root: Path) -> list[str]:
    faults = []
    for file, tree, _ in sources(root):
        if file in SQL_ROOMS or file.startswith(SQL_PREFIXES):
            continue
        documentation = {
            id(body[0].value)
            for body in (getattr(inner, "body", None) for inner in ast.walk(tree))
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr)
        }
        faults += [
            f"{file}:{inner.lineno} holds SQL"
            for inner in ast.walk(tree)
            if isinstance(inner, ast.Constant)
            and isinstance(inner.value, str)
            and id(inner) not in documentation
            and SQL.search(inner.value)
        ]
    return faults


def everything_is_caught_in_three_places_alone(root: Path) -> list[str]:
    faults = []
    for file, tree, _ in sources(root):
        if file in BROAD_EXCEPT_ROOMS:
            continue
        faults += [
            f"{file}:{inner.lineno} catches everything"
            for inner in ast.walk(tree)
            if isinstance(inner, ast.ExceptHandler)
            and (inner.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(inner.type)))
            and not _passes_on(inner)
        ]
    return faults


def _passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether it only cleans up: its last statement is a bare ``raise``."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def packages_have_empty_doors(root: Path) -> list[str]:
    return [file for file, _, text in sources(root) if file.endswith("__init__.py") and text.strip()]


def no_room_is_a_lumber_room(root: Path) -> list[str]:
    return [
        file for file, _, _ in sources(root) if re.search(r"(utils?|common|helpers?|misc)(/|\.py$)", file)
    ]


def the_package_holds_the_layers_alone(root: Path) -> list[str]:
    import tomllib

    found = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    return [pattern for pattern in found["include"] if pattern.rstrip("*.") not in LAYERS]


def torch_is_imported_only_where_a_model_needs_it(root: Path) -> list[str]:
    faults = []
    for file, tree, _ in sources(root):
        for statement in tree.body:
            names = (
                [name.name for name in statement.names]
                if isinstance(statement, ast.Import)
                else [statement.module or ""]
                if isinstance(statement, ast.ImportFrom)
                else []
            )
            faults += [f"{file} imports {name} at its top" for name in names if starts(name, "torch")]
    return faults


Rule = Callable[[Path], list[str]]
# each rule with a file and a line that break it
RULES: list[tuple[Rule, str, str]] = [
    (layers_point_one_way, "node/ingest/ingest.py", "import handlers.c_store"),
    (layers_point_one_way, "node/app.py", "from handlers import c_store"),
    (layers_point_one_way, "models/lungs.py", "from node.status import SUCCESS"),
    (handlers_do_no_later_work, "handlers/c_store.py", "from node.tasks import settle"),
    (handlers_do_no_later_work, "handlers/c_find.py", "import models.lungs"),
    (rooms_of_models_point_one_way, "node/catalogue/catalogue.py", "from node.runners import loading"),
    (rooms_of_models_point_one_way, "node/runners/network.py", "from node.processes import worker"),
    (rooms_of_models_point_one_way, "node/processes/worker.py", "from node.index.index import Index"),
    (the_job_engine_knows_no_task, "node/jobs/worker.py", "from node.tasks.settle import SettleTask"),
    (the_wire_knows_no_meaning, "node/wire/server.py", "from node.ingest.ingest import Ingest"),
    (
        only_negotiation_touches_pynetdicom_inside,
        "node/wire/scu.py",
        "from pynetdicom.pdu import A_ASSOCIATE_RQ",
    ),
    (models_are_pure, "models/lungs.py", "import pydicom"),
    (models_are_pure, "models/lungs.py", "import os"),
    (models_are_pure, "models/series_quality.py", "import socket"),
    (only_the_app_knows_everything, "node/ingest/ingest.py", "from node.app import App"),
    (sql_lives_in_its_rooms, "node/ingest/ingest.py", 'X = "SELECT id FROM instance"'),
    (sql_lives_in_its_rooms, "handlers/c_find.py", 'X = "INSERT INTO job VALUES (1)"'),
    (
        everything_is_caught_in_three_places_alone,
        "node/ingest/ingest.py",
        "try:\n    pass\nexcept Exception:\n    pass",
    ),
    (
        everything_is_caught_in_three_places_alone,
        "node/ingest/ingest.py",
        "try:\n    pass\nexcept:\n    pass",
    ),
    (
        everything_is_caught_in_three_places_alone,
        "models/lungs.py",
        "try:\n    pass\nexcept BaseException:\n    raise ValueError from None",
    ),
    (packages_have_empty_doors, "node/storage/__init__.py", "X = 1"),
    (no_room_is_a_lumber_room, "node/utils.py", "X = 1"),
    (the_package_holds_the_layers_alone, "pyproject.toml", ""),
    (torch_is_imported_only_where_a_model_needs_it, "models/lungs.py", "import torch"),
]


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _, _ in RULES), ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "file", "line"), RULES, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_violation_is_found(rule: Rule, file: str, line: str, tmp_path: Path) -> None:
    for layer in LAYERS:
        shutil.copytree(ROOT / layer, tmp_path / layer, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / file
    if file == "pyproject.toml":
        target.write_text(target.read_text().replace('"models*"', '"models*", "tests*"'))
    else:
        target.parent.mkdir(exist_ok=True)
        text = target.read_text() if target.exists() else ""
        target.write_text(text + "\n" + line + "\n")
    before, after = set(rule(ROOT)), set(rule(tmp_path))
    assert after > before


def test_every_file_of_the_house_is_looked_at() -> None:
    assert len(list(sources(ROOT))) > 50
