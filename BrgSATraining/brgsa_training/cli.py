"""The `brgsa-training` command: one sub-command per stage, each imported only when it is asked for.

A stage module offers `add_parser(subparsers)`, which adds one parser and sets its `run` default to a function that
takes the parsed arguments and returns an exit code (or None for 0). A module that owns several commands offers one
function per command, named in the table.
"""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from brgsa.errors import CANCELLED_EXIT_CODE, BrgSAError, OutOfMemoryError, SetupError


class Command(NamedTuple):
    """Where a sub-command lives and the line that the help shows for it."""

    module: str
    help: str
    add_parser: str = "add_parser"


COMMANDS = {
    "phantom": Command(
        "brgsa_training.phantom.command", "make digital chest phantoms, or train the demonstration weights"
    ),
    "summarize": Command("brgsa_training.summarize.command", "turn reports into captions and a label table"),
    "agreement": Command(
        "brgsa_training.summarize.command",
        "compare two label tables, abnormality by abnormality",
        "add_agreement_parser",
    ),
    "evaluate": Command("brgsa_training.evaluate.command", "measure scores on a benchmark"),
    "retrieve": Command(
        "brgsa_training.evaluate.command", "measure report and volume retrieval", "add_retrieve_parser"
    ),
    "modality-gap": Command(
        "brgsa_training.evaluate.command",
        "measure the gap between image and text embeddings",
        "add_modality_gap_parser",
    ),
    "calibrate": Command(
        "brgsa_training.evaluate.command",
        "fit thresholds and probabilities on calibration data",
        "add_calibrate_parser",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code; errors are one line on stderr (see `brgsa.errors`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        namespace = _parser(_chosen(arguments)).parse_args(arguments)
        return namespace.run(namespace) or 0
    except BrgSAError as error:
        return _fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return _fail("cancelled", CANCELLED_EXIT_CODE, debug)
    except MemoryError:
        return _fail("out of memory. Use fewer workers or a larger machine.", OutOfMemoryError.exit_code, debug)
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: nothing is left to say, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(f"unexpected {reason} (run with --debug for the traceback)", 1, debug)


def _chosen(arguments: Sequence[str]) -> str | None:
    """Return the sub-command among the arguments, or None; options of the top level take no value."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    return words[0] if words and arguments[0] == words[0] and words[0] in COMMANDS else None


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brgsa-training",
        description="Train and measure BrgSA: summarize reports, pretrain with the knowledge bank, run benchmarks.",
        epilog="Every command takes --help, and --debug to show the traceback of an error.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if name == chosen:
            try:
                module = importlib.import_module(command.module)
            except ModuleNotFoundError as error:
                raise _missing(name, error) from error
            getattr(module, command.add_parser)(subparsers)
        else:
            subparsers.add_parser(name, help=command.help)
    return parser


def _missing(name: str, error: ModuleNotFoundError) -> SetupError:
    if (error.name or "").startswith("brgsa_training"):
        return SetupError(
            f"the command {name!r} is not in this installation ({error.name} is missing). Reinstall brgsa."
        )
    return SetupError(
        f"the command {name!r} needs the package {error.name!r}. Install it: python -m pip install 'brgsa[training]'"
    )


def _fail(message: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"brgsa-training: error: {message}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
