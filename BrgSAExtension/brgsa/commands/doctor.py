"""`brgsa doctor`: what is installed, what is missing and what to do."""

import argparse
import json


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("doctor", help="say what is installed, what is missing and what to do")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the diagnosis; exit with 4 where scoring cannot work."""
    from brgsa.doctor import diagnose
    from brgsa.errors import SetupError
    from brgsa.tables import text_table

    diagnosis = diagnose()
    if arguments.json:
        print(json.dumps(diagnosis, indent=2))
    else:
        print(
            text_table(["what", "found", ""], [[row["what"], row["found"], row["state"]] for row in diagnosis["rows"]])
        )
        for advice in diagnosis["advice"]:
            print(f"- {advice}")
    return 0 if diagnosis["ready"] else SetupError.exit_code
