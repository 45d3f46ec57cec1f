"""The `brgsa` command: one sub-command per job."""

import sys
from collections.abc import Sequence

from brgsa.commands.command_line import Command, run

COMMANDS = {
    "score": Command("brgsa.commands.score", "score scans against a list of abnormalities"),
    "embed": Command("brgsa.commands.embed", "write the image embeddings of scans"),
    "index": Command("brgsa.commands.index", "make or extend an index of scans for `brgsa similar`"),
    "similar": Command("brgsa.commands.similar", "find similar scans in an index, by a scan or by words"),
    "check": Command("brgsa.commands.check", "check whether scans are fit to be scored"),
    "abnormalities": Command("brgsa.commands.abnormalities", "list, show and convert abnormality lists"),
    "weights": Command("brgsa.commands.weights", "list, verify, import and export weights"),
    "worker": Command("brgsa.commands.worker", "serve the panel of 3D Slicer over standard input and output"),
    "doctor": Command("brgsa.commands.doctor", "say what is installed, what is missing and what to do"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return run("brgsa", "Score chest CT against abnormalities written in plain words.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
