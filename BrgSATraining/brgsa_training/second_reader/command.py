"""`brgsa-training check-report`."""

import argparse
import json
from pathlib import Path

from brgsa.commands.score import add_scorer_options, scorer_of


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check-report",
        help="compare what a report names with what the model sees in the scan",
        description="Read a report, score its scan, and list what the report names but the model does not see, what "
        "the model sees but the report does not name, and where they agree. Research use only.",
    )
    parser.add_argument("scan", metavar="SCAN", help="image file or DICOM folder")
    parser.add_argument("report", metavar="REPORT", help="the report as a text file (UTF-8), or - for standard input")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--abnormalities",
        default="ct-rate-18",
        metavar="LIST",
        help="preset, file or 'name; name'; what the report names besides is added (default: %(default)s)",
    )
    parser.add_argument("--prompts", choices=("single", "pair", "ensemble"), default="single", help="as brgsa score")
    parser.add_argument("--score", choices=("final", "direct", "bank"), default="final", help="as brgsa score")
    parser.add_argument("--series", metavar="UID", help="DICOM series to read, where a folder holds several")
    add_scorer_options(parser)

    reading = parser.add_argument_group("reading the report")
    reading.add_argument("--backend", choices=("rules", "openai"), default="rules", help="(default: %(default)s)")
    reading.add_argument("--vocabulary", type=Path, metavar="FILE", help="your own vocabulary file")
    reading.add_argument("--allow-identifiers", action="store_true", help="go on where it seems to name a person")
    reading.add_argument("--base-url", metavar="URL", help="of openai: the only server that gets the text")
    reading.add_argument("--model", metavar="NAME", help="of openai; the key comes from OPENAI_API_KEY")
    reading.add_argument(
        "--i-have-deidentified-these-reports",
        action="store_true",
        help="of openai: needed for a server on another machine",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, score, compare and print; the report comes first, because it is quick to refuse."""
    from brgsa.abnormalities import AbnormalityList
    from brgsa.cases import find_case
    from brgsa_training.second_reader.reading import read_report_text
    from brgsa_training.summarize.privacy import require_no_identifier
    from brgsa_training.summarize.vocabulary import load_vocabulary

    abnormalities = AbnormalityList.parse(arguments.abnormalities)
    vocabulary = load_vocabulary(arguments.vocabulary)
    settings = _model_settings(arguments) if arguments.backend == "openai" else None
    case = find_case(arguments.scan, arguments.series)
    text = read_report_text(arguments.report)
    if not arguments.allow_identifiers:
        require_no_identifier("the report", arguments.report, text)
    findings = _findings(text, vocabulary, settings)

    from brgsa_training.second_reader.report_check import check_report, check_table

    scorer = scorer_of(arguments)
    check = check_report(
        scorer,
        scorer.embed(case.path, case=case.name, series=case.series),
        findings,
        abnormalities,
        vocabulary,
        prompts=arguments.prompts,
        kind=arguments.score,
        backend=settings.model if settings else "rules",
    )
    print(json.dumps(check.to_dict(), indent=2, ensure_ascii=False) if arguments.json else check_table(check))
    return 0


def _model_settings(arguments: argparse.Namespace):
    from brgsa.errors import UsageError
    from brgsa_training.summarize.privacy import require_allowed_host

    if not arguments.model:
        raise UsageError("--backend openai needs --model.")
    url = require_allowed_host(arguments.base_url, arguments.i_have_deidentified_these_reports)

    from brgsa_training.summarize.openai_backend import Settings

    return Settings(url, arguments.model, concurrency=1)


def _findings(text: str, vocabulary, settings) -> list:
    from brgsa_training.second_reader.reading import findings_by_model, findings_by_rules

    return findings_by_model(text, vocabulary, settings) if settings else findings_by_rules(text, vocabulary)
