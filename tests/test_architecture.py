"""Which file may import which: folders in one direction, no circle but that of config and algorithm. No file is run here."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest
from paths import ROOT

PACKAGE = "rllib_maddpg"
# A folder may import those of its own floor and of the floors before it.
FLOORS = (
    {"ray_compat"},
    {"rows"},
    {"modules", "envs", "replay"},
    {"learning", "sampling"},
    {"shared"},
    {"config"},
    {"algorithm"},
    {"results"},
    {"plotting"},
    {"runs"},
    {"sweeps", "deploy"},
    {"cli"},
)
# RLlib's pair: a config knows its algorithm, and finds it when it is asked for it.
LAZY = ("config", "algorithm")
NEVER = {("rows", "modules")}


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted((ROOT / PACKAGE).rglob("*.py")) if "moved" not in file.parts}


def imports_of(module):
    """`{(imported module, whether within a function)}`; also those for types only."""
    found = set()

    def walk(node, is_lazy):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}: relative import"
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                found.update((name if name in FILES else child.module, is_lazy) for name in names)
            elif isinstance(child, ast.Import):
                found.update((alias.name, is_lazy) for alias in child.names)
            walk(child, is_lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    walk(ast.parse(FILES[module].read_text()), False)
    return {(name, is_lazy) for name, is_lazy in found if name.split(".")[0] == PACKAGE}


IMPORTS = {module: imports_of(module) for module in FILES}


def room(module):
    """The folder of a module; "" for the package's own files, `__init__` and `__main__`."""
    folder = module.split(".")[1:2]
    return folder[0] if folder and folder != ["__main__"] else ""


def floor(folder):
    return next(i for i, folders in enumerate(FLOORS) if folder in folders)


def is_lazy_pair(module, imported, is_lazy):
    return is_lazy and (room(module), room(imported)) == LAZY


def test_every_folder_has_its_floor():
    rooms = {room(module) for module in FILES} - {""}
    assert rooms == set().union(*FLOORS)
    assert len(FILES) > 100 and sum(map(len, IMPORTS.values())) > 300  # the files are really read


def test_folders_import_downwards_only():
    wrong = set()
    for module, imports in IMPORTS.items():
        for imported, is_lazy in imports if room(module) else ():
            here, there = room(module), room(imported)
            if here == there or is_lazy_pair(module, imported, is_lazy):
                continue
            # The package's own files stand above all folders.
            if there == "" or floor(there) > floor(here) or (here, there) in NEVER:
                wrong.add(f"{module} -> {imported}")
    assert wrong == set()


def files_in_a_circle():
    graph = {
        module: {
            imported
            for imported, is_lazy in imports
            if imported in FILES and imported != PACKAGE and not is_lazy_pair(module, imported, is_lazy)
        }
        for module, imports in IMPORTS.items()
        if module != PACKAGE
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other():
    """Neither directly nor on a way round, nor for types only: one of them can be read without the other."""
    assert files_in_a_circle() == []


def test_folders_of_one_floor_import_each_other_in_one_direction():
    graph = {}
    for module, imports in IMPORTS.items():
        for imported, is_lazy in imports:
            if room(imported) not in ("", room(module)) and not is_lazy_pair(module, imported, is_lazy):
                graph.setdefault(room(module), set()).add(room(imported))
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of folders: {error.args[1]}")
