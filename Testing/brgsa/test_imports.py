"""The arrows between the packages go one way."""

import ast
from pathlib import Path

import pytest

import brgsa
import brgsa_training

FORBIDDEN = {
    brgsa: {"slicer", "qt", "ctk", "vtk", "BrgSALib", "brgsa_training"},
    brgsa_training: {"slicer", "qt", "ctk", "vtk", "BrgSALib"},
}


def imported(path: Path) -> set[str]:
    """Top-level names of every package that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN, ids=lambda package: package.__name__)
def test_no_file_imports_what_stands_above_it(package):
    files = list(Path(package.__file__).parent.rglob("*.py"))
    assert len(files) > 20
    wrong = {str(path): names for path in files if (names := imported(path) & FORBIDDEN[package])}
    assert not wrong
