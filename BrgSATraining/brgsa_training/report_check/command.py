"""`brgsa-training check-report`."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from brgsa.commands.score import add_force_option, add_scorer_options, scorer_of
from brgsa_training.summarize.labels import add_uncertain_option

DEFAULT_LIST = "ct-rate-18"


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check-report",
        help="compare what a report names with what the model sees in the scan",
        description="Read a report, score its scan, and list what the report names but the model does not see, what "
        "the model sees but the report does not name, and where they agree. Research use only.",
    )
    parser.add_argument(
        "scan",
        metavar="SCAN",
        help="image file or DICOM folder; or scores.json of brgsa score, which needs neither scan nor model",
    )
    parser.add_argument("report", metavar="REPORT", help="the report as a text file (UTF-8), or - for standard input")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="new folder for heat maps of the disagreements, report-check.json and report-check.html",
    )
    parser.add_argument(
        "--abnormalities",
        metavar="LIST",
        help="preset, file or 'name; name'; what the report names besides is added "
        f"(default: {DEFAULT_LIST}; with scores.json, all that it holds)",
    )
    parser.add_argument("--prompts", choices=("single", "pair", "ensemble"), default="single", help="as brgsa score")
    parser.add_argument("--score", choices=("final", "direct", "bank"), default="final", help="as brgsa score")
    add_uncertain_option(parser)
    parser.add_argument("--series", metavar="NUMBER", help="number or UID of the DICOM series, of several")
    add_force_option(parser)
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
    from brgsa_training.report_check.reading import STANDARD_INPUT, read_report_text
    from brgsa_training.report_check.scores_file import SUFFIX
    from brgsa_training.report_check.table import check_table
    from brgsa_training.summarize.privacy import require_no_identifier
    from brgsa_training.summarize.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(arguments.vocabulary)
    settings = _model_settings(arguments) if arguments.backend == "openai" else None
    check_of = _from_scores if Path(arguments.scan).suffix.lower() == SUFFIX else _from_scan
    text = read_report_text(arguments.report)
    if not arguments.allow_identifiers:
        place = "standard input" if arguments.report == STANDARD_INPUT else arguments.report
        require_no_identifier(place, "the report", text)
    check = check_of(arguments, lambda: _findings(text, vocabulary, settings), vocabulary)
    print(json.dumps(check.to_dict(), indent=2, ensure_ascii=False) if arguments.json else check_table(check))
    return 0


def _from_scores(arguments: argparse.Namespace, findings: Callable[[], list], vocabulary):
    """Compare with scores that were made before; no package of the model is imported.

    Raises:
        UsageError: heat maps are asked for, which need the scan.
    """
    from brgsa.abnormalities import AbnormalityList
    from brgsa.errors import UsageError
    from brgsa_training.report_check.report_check import compare
    from brgsa_training.report_check.scores_file import read_scores

    if arguments.out:
        raise UsageError("--out writes heat maps, which need the scan and not only its scores. Give the scan.")
    record = read_scores(Path(arguments.scan))
    abnormalities = AbnormalityList.parse(arguments.abnormalities) if arguments.abnormalities else None
    reader = _reader(arguments)
    return compare(record, findings(), vocabulary, abnormalities, backend=reader, uncertain=arguments.uncertain)


def _from_scan(arguments: argparse.Namespace, findings: Callable[[], list], vocabulary):
    """Score the scan, compare, and with --out write the folder."""
    from brgsa.abnormalities import AbnormalityList
    from brgsa.ct.cases import find_case
    from brgsa.files import atomic_folder
    from brgsa_training.report_check.report_check import check_report, with_named

    abnormalities = AbnormalityList.parse(arguments.abnormalities or DEFAULT_LIST)
    case = find_case(arguments.scan, arguments.series)
    found = findings()
    # The folder comes first, so that a wrong one costs no minutes.
    with atomic_folder(arguments.out) if arguments.out else contextlib.nullcontext() as folder:
        scorer = scorer_of(arguments)
        scan = scorer.prepare(case.path, series=case.series, force=arguments.force)
        check = check_report(
            scorer,
            scorer.embed(scan, case=case.name),
            found,
            abnormalities,
            vocabulary,
            prompts=arguments.prompts,
            kind=arguments.score,
            backend=_reader(arguments),
            uncertain=arguments.uncertain,
        )
        if folder:
            from brgsa_training.report_check.check_files import write_check

            scored = with_named(abnormalities, found, vocabulary)
            with _progress_bar() as on_progress:
                check = write_check(folder, check, scored, scorer, scan, on_progress)
    if arguments.out:
        print(f"Heat maps and page are in {arguments.out}", file=sys.stderr)
    return check


def _reader(arguments: argparse.Namespace) -> str:
    """What reads the report."""
    return arguments.model if arguments.backend == "openai" else "rules"


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[float, str], None]]:
    """A bar on standard error for the time that heat maps take."""
    from tqdm import tqdm

    with tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}", disable=None, leave=False) as bar:

        def on_progress(fraction: float, stage: str) -> None:
            bar.set_description(stage, refresh=False)
            bar.update(fraction - bar.n)

        yield on_progress


def _model_settings(arguments: argparse.Namespace):
    from brgsa.errors import UsageError
    from brgsa_training.summarize.privacy import require_allowed_host

    if not arguments.model:
        raise UsageError("--backend openai needs --model.")
    url = require_allowed_host(arguments.base_url, arguments.i_have_deidentified_these_reports)

    from brgsa_training.summarize.openai_client import Settings

    return Settings(url, arguments.model, concurrency=1)


def _findings(text: str, vocabulary, settings) -> list:
    from brgsa_training.report_check.reading import findings_by_model, findings_by_rules

    return findings_by_model(text, vocabulary, settings) if settings else findings_by_rules(text, vocabulary)
