"""`brgsa worker`: the JSON-lines server that 3D Slicer talks to."""


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "worker",
        help="serve 3D Slicer's panel with JSON lines",
        description="Reads one JSON request a line from standard input and answers on standard output; ends with its "
        "input. docs/worker-protocol.md describes the messages.",
    )
    parser.set_defaults(run=run)


def run(arguments) -> int:
    """Serve until the input ends."""
    from brgsa.worker.server import main

    return main()
