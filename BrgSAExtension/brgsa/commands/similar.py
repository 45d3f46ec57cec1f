"""`brgsa similar`: the scans of an index that are most like a scan or fit a text best."""

import argparse
import json
import sys

from brgsa.commands.score import add_force_option


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "similar",
        help="find similar scans in an index, by a scan or by words",
        description="Find the scans of an index that are most like SCAN, or that fit a text best.",
    )
    parser.add_argument("scan", nargs="?", metavar="SCAN", help="image file or DICOM folder")
    parser.add_argument("--text", metavar="TEXT", help='words instead of a scan: "There is a pleural effusion"')
    parser.add_argument("--index", required=True, metavar="INDEX", help="folder that `brgsa index` made")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of scans (default: %(default)s)")
    add_force_option(parser)
    parser.add_argument("--series", metavar="NUMBER", help="number or UID of the DICOM series, of several")
    parser.add_argument(
        "--weights", metavar="NAME|DIR", help="where the index's weights are (default: where they were)"
    )
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Search and print."""
    from brgsa.errors import UsageError

    if (arguments.scan is None) == (arguments.text is None):
        raise UsageError('give either a SCAN or --text "WORDS", one of the two.')
    if arguments.top < 1:
        raise UsageError(f"--top {arguments.top} asks for no scan. Give a number from 1 on.")
    if arguments.series and arguments.scan is None:
        raise UsageError("--series goes with a SCAN.")
    from brgsa.ct.cases import find_case

    case = None if arguments.scan is None else find_case(arguments.scan, arguments.series)

    from brgsa.batch.search import ScanIndex, hits_table, similar_to_scan, similar_to_text
    from brgsa.ct.checks import errors_of
    from brgsa.errors import FORCED

    index = ScanIndex.open(arguments.index)
    scorer = _scorer(arguments, index)
    left_out: list[int] = []
    if case is None:
        hits = similar_to_text(index, scorer, arguments.text, arguments.top)
        query, kind, notes = {"text": arguments.text}, "final", scorer.tokenizer.warnings([arguments.text])
    else:
        embedding = scorer.embed(case.path, case=case.name, series=case.series, force=arguments.force)
        hits, left_out = similar_to_scan(  # the embedding is kept, so it is not made twice
            index, scorer, case, arguments.top, force=arguments.force
        )
        query, kind = {"scan": str(case.path)}, "direct"
        forced = [f"{FORCED}: the scan fails the input checks"] if errors_of(embedding.findings) else []
        notes = [*forced, *embedding.source.messages, *(f"{row.severity}: {row.message}" for row in embedding.findings)]
    own = [index.case(row).name for row in left_out]
    notes += [f"the scan itself is in the index as {name} and was left out" for name in own]
    if arguments.json:
        content = {
            "version": 1,
            "query": query,
            "index": str(index.folder.absolute()),
            "scans": len(index),
            "weights": scorer.weights.name,
            "score": kind,
            "precision": index.about["precision"],
            "left_out": own,
            "notice": scorer.weights.notice,
            "notes": notes,
            "hits": [hit.to_dict(rank) for rank, hit in enumerate(hits, 1)],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return 0
    print(hits_table(hits))
    for note in notes:
        print(f"note: {note}")
    if any(hit.missing for hit in hits):
        print("note: missing scans are no longer where they were; run `brgsa index` on the place they moved to")
    if scorer.weights.notice:
        print(scorer.weights.notice)
    return 0


def _scorer(arguments: argparse.Namespace, index):
    """Load the weights of the index, with the precision and fidelity that it was made with."""
    from brgsa.errors import SetupError
    from brgsa.scoring import Scorer
    from brgsa.weights.folder import open_weights

    name = arguments.weights or index.about["weights"]
    print(f"loading weights {name} ...", file=sys.stderr)
    try:
        weights = open_weights(name)
    except SetupError as error:
        if arguments.weights:
            raise
        raise SetupError(f"{error} They are those of {index.folder}; say where they are now with --weights.") from error
    index.require_weights(weights.checksum, weights.name)
    return Scorer.from_pretrained(
        name, device=arguments.device, precision=index.about["precision"], fidelity=index.about["fidelity"]
    )
