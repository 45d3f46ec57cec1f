"""The library's rooms stay few, in one order, and within sight of each other."""

import runpy
from pathlib import Path

STRUCTURE = runpy.run_path(str(Path(__file__).with_name("structure.py")))


def test_the_library_keeps_to_the_limits_of_its_structure():
    found, goals = STRUCTURE["measured"](), STRUCTURE["GOALS"]
    assert {name: value for name, value in found.items() if value > goals[name]} == {}


def test_a_circle_and_the_longest_chain_are_found():
    edges = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}
    assert STRUCTURE["circles"](edges) == [["b", "c"]]
    assert len(STRUCTURE["longest_chain"]({"a": {"b"}, "b": {"d"}, "c": {"d"}, "d": set()})) == 3
