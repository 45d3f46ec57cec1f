"""Tests wait for events with one limit, and none asserts a time."""

import ast
from pathlib import Path

import pytest

TESTING = Path(__file__).parent
CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"}
OWNER = TESTING / "standins" / "waiting.py"


def reads_a_clock(node):
    """Whether an expression calls a clock of the module time."""
    return any(
        isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and isinstance(part.func.value, ast.Name)
        and part.func.value.id == "time"
        and part.func.attr in CLOCKS
        for part in ast.walk(node)
    )


def names(node):
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def times(function):
    """Names that hold a time in a function."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and (reads_a_clock(node.value) or found & names(node.value)):
            found |= {name for target in node.targets for name in names(target)}
        elif isinstance(node, ast.Call) and any(map(reads_a_clock, node.args)):
            found |= names(node.func)  # a list that a time is appended to
    return found


def faults(source):
    """Lines with an assertion on a time, or with a limit of their own."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        held = times(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Assert) and (reads_a_clock(node.test) or held & names(node.test)):
                yield node.lineno
    for node in ast.walk(tree):
        limits = []
        if isinstance(node, ast.keyword) and node.arg == "timeout":
            limits = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("wait", "join"):
            limits = node.args
        yield from (limit.lineno for limit in limits if type(getattr(limit, "value", None)) in (int, float))


def test_no_test_asserts_a_time_or_has_a_limit_of_its_own():
    files = [path for path in TESTING.rglob("*.py") if "benchmarks" not in path.parts and path != OWNER]
    found = [f"{path.relative_to(TESTING)}:{line}" for path in files for line in faults(path.read_text("utf-8"))]
    assert not found, f"wait for an event instead, with waiting.wait or LONGEST_WAIT: {', '.join(sorted(set(found)))}"


@pytest.mark.parametrize(
    "line",
    [
        "assert time.monotonic() - started < 5",
        "took = time.perf_counter() - 3\n    assert took < 5",
        "started = time.time()\n    took = 5 - started\n    assert 3 > took",
        "seen.append(time.monotonic())\n    assert seen[1] > 3",
        "subprocess.run(command, timeout=60)",
        "thread.join(10)",
    ],
)
def test_assertions_on_times_are_found(line):
    assert list(faults(f"def test():\n    {line}\n"))


@pytest.mark.parametrize("line", ["assert row.time < 5", "process.wait(timeout=LONGEST_WAIT)", "time.sleep(1)"])
def test_what_asserts_no_time_is_left_alone(line):
    assert not list(faults(f"def test():\n    {line}\n"))
