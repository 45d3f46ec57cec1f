"""What the commands `brgsa` and `brgsa-training` share: sub-commands imported when asked for, errors of one line.

The module of a sub-command offers `add_parser(subparsers)`, which adds one parser and sets its `run` default to a
function that takes the parsed arguments and returns an exit code (or None for 0). A module that owns several commands
offers one such function per command, named in the table. Codes are those of `brgsa.errors`.
"""

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from brgsa.errors import CANCELLED_EXIT_CODE, BrgSAError, OutOfMemoryError, SetupError, first_line, is_out_of_memory


class Command(NamedTuple):
    """Where a sub-command lives and the line that the help shows for it."""

    module: str
    help: str
    add_parser: str = "add_parser"


def run(program: str, description: str, commands: Mapping[str, Command], arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code; an error is one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if hasattr(sys.stdout, "reconfigure"):
        # Files and pipes get UTF-8 on every system, as our own files do; a terminal says itself what it can show.
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="backslashreplace")
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format=f"{program}: %(message)s")
    try:
        namespace = _parser(program, description, commands, _chosen(commands, arguments)).parse_args(arguments)
        with _ended_like_ctrl_c():
            code = namespace.run(namespace) or 0
        sys.stdout.flush()
        return code
    except BrgSAError as error:
        return _fail(program, str(error), error.exit_code, debug)
    except ImportError as error:
        return _fail(program, _unloadable(error), SetupError.exit_code, debug)
    except KeyboardInterrupt as stop:
        return _fail(program, ": ".join(["cancelled", *map(str, stop.args)]), CANCELLED_EXIT_CODE, debug)
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: nothing is left to say, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(program, "out of memory. Use a larger machine.", OutOfMemoryError.exit_code, debug)
        reason = f"unexpected {type(error).__name__}: {first_line(error)} (run with --debug for the traceback)"
        return _fail(program, reason, 1, debug)


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, with which a cluster or a shutdown ends a command, be heard as Ctrl-C is; not in forked children."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def interrupt(number: int, frame: Any) -> None:
        if os.getpid() == process:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _chosen(commands: Mapping[str, Command], arguments: Sequence[str]) -> str | None:
    """The sub-command that the arguments begin with, or None."""
    return arguments[0] if arguments and arguments[0] in commands else None


def _parser(
    program: str, description: str, commands: Mapping[str, Command], chosen: str | None
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Every command takes --help, and --debug to show the traceback of an error.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in commands.items():
        if name == chosen:
            getattr(importlib.import_module(command.module), command.add_parser)(subparsers)
        else:
            subparsers.add_parser(name, help=command.help)
    return parser


def _unloadable(error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    if package in ("brgsa", "brgsa_training"):
        return f"{error.name} is missing from this installation. Install brgsa again."
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the Python package {package!r} is not installed. `brgsa doctor` says what is missing and how to get it."
        )
    return f"a Python package cannot be loaded ({first_line(error)}). `brgsa doctor` says which; install it again."


def _fail(program: str, message: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"{program}: error: {message}", file=sys.stderr)
    return exit_code
