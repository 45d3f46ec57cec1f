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
    import signal

    from brgsa.worker.server import main

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is lost, and whoever ends a worker does not want to wait
    return main()
