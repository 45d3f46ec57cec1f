"""`brgsa check`: only the input checks."""

import argparse
import json

from brgsa.commands.score import INPUT_HELP, add_weights_option, cases_of


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check",
        help="check whether scans are fit to be scored",
        description="Check whether scans are fit to be scored. The codes are explained in docs/input-checks.md.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument("--series", metavar="NUMBER", help="number or UID of the DICOM series, of several")
    add_weights_option(parser, "weights that the scans are meant for: each sees a window of its own")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check and print; a scan that cannot be read is an error among the findings.

    Raises:
        InputError: no scan would be scored.
        CasesFailedError: some would not.
    """
    from tqdm import tqdm

    from brgsa.ct.checks import Finding, check_ct, errors_of
    from brgsa.ct.volume import read_ct
    from brgsa.errors import BrgSAError, CasesFailedError, InputError
    from brgsa.tables import text_table
    from brgsa.weights.folder import open_weights

    window_mm = open_weights(arguments.weights).plan.window_mm
    reports, unread, unfit = [], 0, []
    for case in tqdm(cases_of(arguments), unit="scan", disable=None):
        report = {"case": case.name, "path": str(case.path), "axes": None, "shape": None, "spacing": None}
        report["messages"] = []
        try:
            volume = read_ct(case.path, case.series)
            findings = check_ct(volume, window_mm)
            report |= {
                "axes": volume.source.stored_axes,
                "shape": list(volume.source.stored_shape),
                "spacing": [round(size, 4) for size in volume.spacing],
                "messages": list(volume.source.messages),
            }
        except BrgSAError as error:
            unread += 1
            findings = [Finding("unreadable", "error", str(error))]
        unfit += [case.name] * bool(errors_of(findings))
        report["findings"] = [vars(finding) for finding in findings]
        reports.append(report)

    if arguments.json:
        print(json.dumps({"version": 1, "cases": reports}, indent=2, ensure_ascii=False))
    else:
        rows = []
        for report in reports:
            spacing = "x".join(f"{size:g}" for size in report["spacing"] or ())
            lines = [f"{row['severity']} {row['code']}: {row['message']}" for row in report["findings"]] or ["ok"]
            lines += [f"note: {message}" for message in report["messages"]]
            first = [report["case"], report["axes"] or "", spacing]
            rows += [[*(first if n == 0 else ("", "", "")), line] for n, line in enumerate(lines)]
        print(text_table(["case", "axes", "spacing mm", "findings"], rows))
    if unread and unread == len(reports):
        raise InputError(f"no scan could be read; the first: {reports[0]['findings'][0]['message']}")
    if unfit:
        message = f"{len(unfit)} of {len(reports)} scans would be refused or cannot be read: {', '.join(unfit[:5])}"
        raise InputError(message) if len(unfit) == len(reports) else CasesFailedError(message)
    return 0
