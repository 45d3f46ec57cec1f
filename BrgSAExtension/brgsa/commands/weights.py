"""`brgsa weights`: list, inspect, verify, import and export weights."""

import argparse
import json
import sys
from pathlib import Path


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("weights", help="list, verify, import and export weights")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    actions.add_parser("list", help="the weights known by name").set_defaults(run=list_weights)
    for name, function, text in (
        ("info", info, "what a weights folder holds"),
        ("verify", verify_weights, "read every byte and compare with SHA256SUMS"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("weights", metavar="NAME|DIR")
        action.set_defaults(run=function)
    importing = actions.add_parser("import", help="make a weights folder from the released checkpoint or from a bundle")
    importing.add_argument("file", metavar="FILE", help="released best.ckpt, or a bundle made by export-bundle")
    importing.add_argument(
        "--text", metavar="DIR", help="folder of the released text encoder (vocab.txt), for best.ckpt"
    )
    importing.add_argument("--out", required=True, metavar="DIR", help="the new weights folder")
    importing.set_defaults(run=import_weights)
    exporting = actions.add_parser("export-bundle", help="pack weights into one file for a machine without network")
    exporting.add_argument("weights", metavar="NAME|DIR")
    exporting.add_argument("file", metavar="FILE.zip")
    exporting.set_defaults(run=export)


def list_weights(arguments: argparse.Namespace) -> None:
    """Print the registry."""
    from brgsa.tables import text_table
    from brgsa.weights.folder import registry

    rows = [[row.name, "yes" if row.folder else "no", row.licence, row.description] for row in registry().values()]
    print(text_table(["name", "shipped", "licence", "what"], rows))
    for row in registry().values():
        if not row.folder:
            print(f"{row.name}: {row.how_to_get}")


def info(arguments: argparse.Namespace) -> None:
    """Print what a weights folder holds, as JSON."""
    from brgsa.weights.folder import open_weights

    print(json.dumps(open_weights(arguments.weights).describe(), indent=2))


def verify_weights(arguments: argparse.Namespace) -> None:
    """Read every byte again."""
    from brgsa.errors import SetupError
    from brgsa.weights.folder import locate, verify

    folder = locate(arguments.weights)[1]
    problems = verify(folder, fresh=True)
    if problems:
        raise SetupError(f"weights {folder}: {'; '.join(problems)}. Import or copy the weights again.")
    print(f"{folder}: every file agrees with its checksum")


def import_weights(arguments: argparse.Namespace) -> None:
    """Make a weights folder."""
    from brgsa.errors import SetupError, UsageError
    from brgsa.weights.folder import import_bundle, import_released, is_bundle

    if not Path(arguments.file).is_file():
        raise SetupError(f"{arguments.file}: there is no such file; check the spelling.")
    if is_bundle(arguments.file):
        folder = import_bundle(arguments.file, arguments.out)
    elif not arguments.text:
        raise UsageError(
            f"{arguments.file} is not a weights bundle. A released checkpoint needs --text DIR, the folder of its text "
            "encoder with vocab.txt; a bundle that is damaged must be copied again."
        )
    else:
        folder = import_released(
            arguments.file, arguments.text, arguments.out, on_stage=lambda stage: print(f"{stage} ...", file=sys.stderr)
        )
    print(f"weights in {folder}. Use them with --weights {folder}")


def export(arguments: argparse.Namespace) -> None:
    """Pack weights."""
    from brgsa.files.output_folder import require_new_file
    from brgsa.weights.folder import export_bundle

    require_new_file(arguments.file)
    bundle = export_bundle(arguments.weights, arguments.file)
    print(f"packed into {bundle}. On the other machine: brgsa weights import {bundle.name} --out DIR")
