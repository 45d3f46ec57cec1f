"""How `brgsa` hangs together: what stands at its top, and what imports what.

    python Testing/structure.py            one line each, beside the goals
    python Testing/structure.py --edges    every import between two rooms

A room is a module or a package at the top of `brgsa`; `__init__` and `__main__` are doors and do not count as rooms.
"""

import argparse
import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "BrgSAExtension" / "brgsa"
GOALS = {"rooms": 25, "edges": 95, "chain": 12, "circles": 0, "hidden circles": 0}
Graph = dict[str, set[str]]


def rooms(package: Path = PACKAGE) -> dict[str, list[Path]]:
    """The files of each module and package at the top."""
    found = {path.stem: [path] for path in sorted(package.glob("*.py")) if not path.stem.startswith("__")}
    found |= {path.parent.name: sorted(path.parent.rglob("*.py")) for path in sorted(package.glob("*/__init__.py"))}
    return found


def imports(path: Path, names: set[str], *, inside: bool) -> set[str]:
    """The rooms that a file imports; `inside` adds those that it imports inside functions (hidden from the reader)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not inside:
        functions = ast.FunctionDef | ast.AsyncFunctionDef
        deep = [function for function in ast.walk(tree) if isinstance(function, functions)]
        hidden = {id(node) for function in deep for node in ast.walk(function)}
    found = set()
    for node in ast.walk(tree):
        if not inside and id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            module = (node.module or "").split(".")
            if module[0] == PACKAGE.name:
                found |= {module[1]} if len(module) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found |= {part[1] for part in parts if part[0] == PACKAGE.name and len(part) > 1}
    return found & names


def graph(*, inside: bool) -> Graph:
    """What each room imports."""
    found = rooms()
    return {
        room: set().union(*(imports(file, set(found), inside=inside) for file in files)) - {room}
        for room, files in found.items()
    }


def circles(edges: Graph) -> list[list[str]]:
    """Groups of rooms that import each other (strongly connected components of more than one)."""
    reach = {room: _reach(room, edges) for room in edges}
    groups = {frozenset({room} | {other for other in reach[room] if room in reach[other]}) for room in edges}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def longest_chain(edges: Graph) -> list[str]:
    """The longest way of imports from one room to another; rooms of a circle are passed once."""

    def below(room: str, above: tuple[str, ...]) -> list[str]:
        if not (found := chains.get(room)) or any(step in above for step in found):
            ways = [below(other, (*above, room)) for other in sorted(edges[room]) if other not in above]
            found = [room, *max(ways, key=len, default=[])]
            if not above:
                chains[room] = found
        return found

    chains: dict[str, list[str]] = {}
    return max((below(room, ()) for room in sorted(edges, key=lambda room: len(_reach(room, edges)))), key=len)


def _reach(room: str, edges: Graph) -> set[str]:
    seen, todo = set(), [room]
    while todo:
        for other in edges[todo.pop()] - seen:
            seen.add(other)
            todo.append(other)
    return seen


def measured() -> dict[str, int]:
    """The figures that `GOALS` names."""
    shown, everything = graph(inside=False), graph(inside=True)
    return {
        "rooms": len(everything),
        "edges": sum(map(len, everything.values())),
        "chain": len(longest_chain(everything)),
        "circles": len(circles(shown)),
        "hidden circles": len(circles(everything)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", action="store_true", help="every import between two rooms")
    if parser.parse_args().edges:
        for room, imported in graph(inside=True).items():
            print(f"{room}: {', '.join(sorted(imported))}")
    for name, value in measured().items():
        print(f"{name:<16}{value:>5}   goal at most {GOALS[name]}")
    print("chain:", " > ".join(longest_chain(graph(inside=True))))
    for group in circles(graph(inside=True)):
        print("circle:", ", ".join(group))


if __name__ == "__main__":
    main()
