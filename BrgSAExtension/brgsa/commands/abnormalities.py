"""`brgsa abnormalities`: list, show and convert abnormality lists."""

import argparse

from brgsa.abnormalities import AbnormalityList, describe, describe_presets
from brgsa.files.output_folder import require_new_file
from brgsa.tables import text_table


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("abnormalities", help="list, show and convert abnormality lists")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the presets")
    listing.set_defaults(run=list_presets)
    showing = actions.add_parser("show", help="the abnormalities of a preset or file, with prompts and codes")
    showing.add_argument("name", metavar="LIST", help="preset, file or 'name; name'")
    showing.set_defaults(run=show)
    converting = actions.add_parser("convert", help="write a list in another format")
    converting.add_argument("source", metavar="IN", help="preset, file or 'name; name'")
    converting.add_argument("target", metavar="OUT", help="new file ending in .json, .csv or .txt")
    converting.set_defaults(run=convert)


def list_presets(arguments: argparse.Namespace) -> None:
    """Print the presets."""
    rows = describe_presets()
    print(text_table(list(rows[0]), [list(row.values()) for row in rows]))


def show(arguments: argparse.Namespace) -> None:
    """Print one list."""
    abnormalities = AbnormalityList.parse(arguments.name)
    rows = describe(abnormalities)
    print(text_table(list(rows[0]), [["" if v is None else v for v in row.values()] for row in rows]))
    if abnormalities.description:
        print(abnormalities.description)


def convert(arguments: argparse.Namespace) -> None:
    """Write a list to a file and say what the format cannot hold."""
    require_new_file(arguments.target)
    abnormalities = AbnormalityList.parse(arguments.source)
    if lost := abnormalities.write(arguments.target):
        print(f"note: this format has no place for: {', '.join(lost)}")
    print(f"{len(abnormalities)} abnormalities written to {arguments.target}")
