"""The library's rooms stay few, in one order, and within sight of each other."""

from structure import GOALS, circles, longest_chain, measured


def test_the_library_keeps_to_the_limits_of_its_structure():
    found = measured()
    assert {name: value for name, value in found.items() if value > GOALS[name]} == {}


def test_a_circle_and_the_longest_chain_are_found():
    edges = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}
    assert circles(edges) == [["b", "c"]]
    assert len(longest_chain({"a": {"b"}, "b": {"d"}, "c": {"d"}, "d": set()})) == 3
