"""The commands `brgsa-training summarize`, its companions, and `brgsa-training agreement`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brgsa.errors import UsageError
from brgsa.files.output_folder import output_folder, require_new_file
from brgsa_training.summarize.labels import NOT_REVIEWED, add_uncertain_option

FORMATTER = argparse.RawDescriptionHelpFormatter


def add_parser(subparsers: Any) -> None:
    """Add `summarize REPORTS`."""
    parser = subparsers.add_parser(
        "summarize",
        help="turn reports into captions and a label table",
        description="Turn chest CT reports into findings, a label table and training captions.\n"
        "Companions: summarize review, apply-corrections, captions, ledger.",
        formatter_class=FORMATTER,
    )
    parser.add_argument(
        "reports", type=Path, nargs="+", metavar="REPORTS", help="CSV files with a header line, or JSONL"
    )
    parser.add_argument("--ids", type=Path, metavar="FILE", help="only these reports: one identifier or volume a line")
    parser.add_argument("--out", type=Path, help="folder for the results (not needed with --dry-run)")
    parser.add_argument("--config", action=_Config, metavar="FILE", help="JSON object of options; later options win")

    columns = parser.add_argument_group("columns (found by their usual names, CT-RATE's among them)")
    columns.add_argument("--id-column", metavar="NAME")
    columns.add_argument("--text-columns", nargs="+", metavar="NAME", default=[], help="joined in this order")
    columns.add_argument("--image-column", metavar="NAME", help="the volumes that a report describes")
    columns.add_argument("--split-column", metavar="NAME", help="default: by the identifier (train_..., valid_...)")

    parser.add_argument("--backend", choices=("rules", "openai"), default="rules", help="default: %(default)s")
    parser.add_argument("--vocabulary", type=Path, metavar="FILE", help="your own vocabulary file")
    _label_option(parser)
    _variant_options(parser)
    parser.add_argument("--allow-identifiers", action="store_true", help="go on where a report seems to name a person")

    model = parser.add_argument_group("language model (--backend openai; the key comes from OPENAI_API_KEY)")
    model.add_argument("--base-url", metavar="URL", help="the only server that gets the text")
    model.add_argument("--model", metavar="NAME")
    model.add_argument("--i-have-deidentified-these-reports", action="store_true", help="needed for another machine")
    model.add_argument(
        "--concurrency", type=int, default=16, metavar="N", help="requests at a time (default: %(default)s)"
    )
    model.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds per request (default: %(default)g)"
    )
    model.add_argument("--max-tokens", type=int, default=4000, metavar="N", help="per answer (default: %(default)s)")
    model.add_argument("--ledger", type=Path, metavar="FILE", help="answers so far (default: OUT/ledger.sqlite)")
    model.add_argument("--redo", choices=("failed", "all"), help="ask again although the ledger has an answer")
    model.add_argument(
        "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="your model's, in dollars per million tokens"
    )
    model.add_argument(
        "--max-cost", type=float, metavar="DOLLARS", help="stop before this run costs more; needs --price"
    )
    model.add_argument("--dry-run", action="store_true", help="only print requests, tokens and, with --price, the cost")
    model.add_argument(
        "--batch-export", type=Path, metavar="FILE", help="write requests for the OpenAI Batch API, send none"
    )
    model.add_argument(
        "--batch-import", type=Path, nargs="+", metavar="FILE", help="take answers from Batch API outputs"
    )
    parser.set_defaults(run=_summarize)


def add_review_parser(subparsers: Any) -> None:
    """Add `summarize review`."""
    parser = subparsers.add_parser(
        "summarize review", description="Sample reports for a reader, with the evidence marked."
    )
    parser.add_argument("results", type=Path, metavar="OUT", help="folder that `summarize` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="review.html, or review.csv")
    parser.add_argument("--sample", type=int, default=50, metavar="N", help="number of reports (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OTHER",
        help="results of another backend: what the two disagree on comes first, in reports and in their rows",
    )
    parser.add_argument("--vocabulary", type=Path, metavar="FILE")
    _label_option(parser)
    parser.set_defaults(run=_review)


def add_corrections_parser(subparsers: Any) -> None:
    """Add `summarize apply-corrections`."""
    parser = subparsers.add_parser(
        "summarize apply-corrections",
        description="Write the results with a reader's corrections, and how well machine and reader agree.",
    )
    parser.add_argument("corrections", type=Path, metavar="FILE", help="the table that the reader saved")
    parser.add_argument("--results", type=Path, required=True, metavar="OUT", help="folder that `summarize` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="another folder, for the corrected set")
    parser.add_argument("--vocabulary", type=Path, metavar="FILE")
    _label_option(parser)
    _variant_options(parser)
    parser.set_defaults(run=_apply_corrections)


def add_captions_parser(subparsers: Any) -> None:
    """Add `summarize captions`."""
    parser = subparsers.add_parser(
        "summarize captions", description="Make another captions file from finished results."
    )
    parser.add_argument("results", type=Path, metavar="OUT", help="folder that `summarize` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="captions.json")
    parser.add_argument("--vocabulary", type=Path, metavar="FILE")
    _label_option(parser)
    _variant_options(parser)
    parser.set_defaults(run=_captions)


def add_ledger_parser(subparsers: Any) -> None:
    """Add `summarize ledger`."""
    parser = subparsers.add_parser("summarize ledger", description="Export every answer of a ledger as JSONL.")
    parser.add_argument("ledger", type=Path, metavar="LEDGER")
    parser.add_argument("--export", type=Path, required=True, metavar="FILE")
    parser.set_defaults(run=_ledger)


def add_vocabulary_check_parser(subparsers: Any) -> None:
    """Add `vocabulary check`."""
    parser = subparsers.add_parser(
        "vocabulary check",
        description="Check a vocabulary file: its layout and patterns, whether it finds its own names, and what it "
        "catches in a set of reports.",
    )
    parser.add_argument("vocabulary", type=Path, metavar="FILE", help="vocabulary file, or the name of one of ours")
    parser.add_argument("--reports", type=Path, nargs="+", metavar="REPORTS", help="CSV with a header line, or JSONL")
    parser.add_argument("--labels", default="all", metavar="SET", help="only a label set of it (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the table as CSV, with an example sentence each"
    )
    parser.set_defaults(run=_vocabulary_check)


def add_agreement_parser(subparsers: Any) -> None:
    """Add `agreement`."""
    parser = subparsers.add_parser(
        "agreement",
        help="compare label tables, abnormality by abnormality",
        description="Compare a label table with a reference: precision, recall, F1 and kappa per abnormality, with 95 "
        "% bootstrap intervals over reports. Several tables (rules, a language model) are compared with the reference "
        "(a reader) and with each other on one sheet. Tables are joined on their identifiers and column names.",
    )
    parser.add_argument(
        "tables", type=Path, nargs="+", metavar="TABLE", help="CSV: identifier, then 1, 0, -1 or nothing"
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="CSV of the same layout")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the measures as CSV")
    parser.add_argument("--labels", metavar="SET", help="only the abnormalities of a label set, such as ct-rate-18")
    parser.add_argument("--id-column", metavar="NAME", help="default: the first column of each table")
    add_uncertain_option(parser)
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help="bootstrap samples (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_agreement)


class _Config(argparse.Action):
    """Takes options from a JSON file; keys are the long names of the options, with - or _."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            content = json.loads(Path(values).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the configuration {values}: {error}.") from error
        known = {action.dest: action for action in parser._actions if action.option_strings}
        if not isinstance(content, dict):
            raise UsageError(f"the configuration {values} is not a JSON object of options.")
        for key, value in content.items():
            action = known.get(key.replace("-", "_"))
            if action is None or action is self:
                raise UsageError(f"{values}: there is no option {key!r}. (The API key comes from OPENAI_API_KEY.)")
            if action.nargs == 0 and not isinstance(value, bool):
                raise UsageError(f"{values}: {key!r} is true or false, not {value!r}.")
            if action.type in (int, float):
                numbers = value if isinstance(value, list) else [value]
                if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers):
                    raise UsageError(f"{values}: {key!r} is a number, not {value!r}.")
            if action.type is Path and value is not None:
                value = [Path(item) for item in value] if isinstance(value, list) else Path(value)
            if action.choices and value not in action.choices:
                raise UsageError(f"{values}: {key!r} is one of {', '.join(action.choices)}, not {value!r}.")
            setattr(namespace, action.dest, value)


def _label_option(parser: Any) -> None:
    parser.add_argument(
        "--labels",
        default="all",
        metavar="SET",
        help="for label table and captions: all, ct-rate-18, ct-rate-lt-15, gpt4o-88, rad-chestct-16, rad-chestct-56 "
        "(default: %(default)s, of the vocabulary)",
    )


def _variant_options(parser: Any) -> None:
    group = parser.add_argument_group("captions (the defaults are the paper's main run, the others its ablations)")
    group.add_argument("--captions", choices=("both", "report", "summary"), default="both", help="default: %(default)s")
    group.add_argument("--drop-sentences", type=float, default=0.0, metavar="SHARE", help="0.1 to 0.4 in the paper")
    group.add_argument(
        "--details",
        nargs="+",
        choices=("severity", "size", "location"),
        default=[],
        help='state these too, where the report tells: "there is mild emphysema in the right lung"',
    )
    group.add_argument("--label-noise", type=float, default=0.0, metavar="SHARE", help="0.1 or 0.2 in the paper")
    group.add_argument("--seed", type=int, default=0, help="of the two options above (default: %(default)s)")
    add_uncertain_option(group)


def _variant(arguments: argparse.Namespace) -> Any:
    from brgsa_training.summarize.captions import Variant

    variant = Variant(
        arguments.captions,
        arguments.drop_sentences,
        arguments.label_noise,
        arguments.seed,
        arguments.uncertain,
        tuple(arguments.details),
    )
    variant.check()
    return variant


def _labels(arguments: argparse.Namespace) -> tuple[Any, Sequence[str]]:
    from brgsa_training.summarize.vocabulary import vocabulary_with

    vocabulary = vocabulary_with(arguments.labels, arguments.vocabulary)
    return vocabulary, vocabulary.label_set(arguments.labels)


def _summarize(arguments: argparse.Namespace) -> int:
    from brgsa_training.summarize.job import summarize

    return summarize(arguments, *_labels(arguments), _variant(arguments))


def _review(arguments: argparse.Namespace) -> None:
    from brgsa_training.summarize.findings import read_summaries
    from brgsa_training.summarize.outputs import FINDINGS
    from brgsa_training.summarize.review import disputed, most_disputed, sample, write_review_csv, write_review_html

    vocabulary, names = _labels(arguments)
    writers = {".html": write_review_html, ".csv": write_review_csv}
    if arguments.out.suffix.lower() not in writers:
        raise UsageError(f"--out {arguments.out} must end in .html or .csv.")
    require_new_file(arguments.out)
    results = arguments.results / FINDINGS
    differences: dict[str, list[str]] = {}
    if arguments.against:
        other = read_summaries(arguments.against / FINDINGS)
        differences = disputed(read_summaries(results), other, names, vocabulary)
        chosen = most_disputed(read_summaries(results), differences, arguments.sample)
    else:
        chosen = sample(read_summaries(results), arguments.sample, arguments.seed)
    writers[arguments.out.suffix.lower()](arguments.out, chosen, names, vocabulary, differences)
    print(f"{len(chosen)} reports for review in {arguments.out}")
    if arguments.against:
        cells = sum(map(len, differences.values()))
        print(f"the two results differ in {cells} places of {len(differences)} reports")


def _apply_corrections(arguments: argparse.Namespace) -> None:
    from brgsa_training.summarize.agreement import agree, agreement_text, table_of, write_agreement
    from brgsa_training.summarize.findings import read_summaries
    from brgsa_training.summarize.outputs import FINDINGS, SUMMARIES, write_outputs
    from brgsa_training.summarize.review import corrected, label_of, read_review

    vocabulary, names = _labels(arguments)
    variant = _variant(arguments)
    rows = read_review(arguments.corrections, vocabulary)
    if arguments.out.resolve() == arguments.results.resolve():
        raise UsageError("--out must be another folder than --results, so that the machine's own results are kept.")
    about = {"corrections": arguments.corrections.name, "reviewed": len({row.report for row in rows})}
    machine = read_summaries(arguments.results / FINDINGS)
    with output_folder(arguments.out, SUMMARIES):
        counts = write_outputs(arguments.out, corrected(machine, rows), names, vocabulary, variant, about)
    reports = list(dict.fromkeys(row.report for row in rows))
    reviewed = [name for name in vocabulary.names if any(row.abnormality == name for row in rows)]
    said = {(row.report, row.abnormality): (label_of(row.machine), label_of(row.reader)) for row in rows}
    cells = [[said.get((report, name), (NOT_REVIEWED, NOT_REVIEWED)) for name in reviewed] for report in reports]
    tables = [table_of(reports, reviewed, [[cell[side] for cell in row] for row in cells]) for side in (0, 1)]
    results = agree(*tables, uncertain=variant.uncertain)
    write_agreement(arguments.out / "agreement.csv", {("machine", "reader"): results})
    changed = sum(row.reader != row.machine for row in rows)
    shown = [result for result in results if result.positives]
    print(agreement_text(shown) if shown else "the reader found no abnormality present, so there is no F1 or recall")
    print(f"{changed} of {len(rows)} reviewed lines corrected; {counts['reports']} reports in {arguments.out}")


def _captions(arguments: argparse.Namespace) -> None:
    from brgsa_training.summarize.captions import write_captions
    from brgsa_training.summarize.findings import read_summaries
    from brgsa_training.summarize.outputs import FINDINGS

    require_new_file(arguments.out)
    vocabulary, names = _labels(arguments)
    findings = arguments.results / FINDINGS
    count = write_captions(arguments.out, lambda: read_summaries(findings), names, vocabulary, _variant(arguments))
    print(f"{count} captions in {arguments.out}")


def _ledger(arguments: argparse.Namespace) -> None:
    from brgsa_training.summarize.ledger import Ledger

    if not arguments.ledger.exists():
        raise UsageError(f"there is no ledger {arguments.ledger}.")
    require_new_file(arguments.export)
    with Ledger(arguments.ledger) as ledger:
        print(f"{ledger.export_jsonl(arguments.export)} answers in {arguments.export}")


def _vocabulary_check(arguments: argparse.Namespace) -> None:
    from brgsa_training.summarize.reports import read_reports
    from brgsa_training.summarize.vocabulary import load_vocabulary
    from brgsa_training.summarize.vocabulary_check import catches, catches_text, own_names_missed, write_catches

    if arguments.out:
        require_new_file(arguments.out)
    vocabulary = load_vocabulary(arguments.vocabulary)
    names = vocabulary.label_set(arguments.labels)
    print(f"{vocabulary.name}: {len(vocabulary.names)} abnormalities; label sets: {', '.join(vocabulary.label_sets)}")
    for name, phrase in own_names_missed(vocabulary, names):
        print(f"not found as present: {phrase!r}, a name of {name}")
    if arguments.reports:
        found, reports = catches(vocabulary, names, (report.text for report in read_reports(arguments.reports)))
        print(catches_text(found, reports))
        if arguments.out:
            write_catches(arguments.out, found)


def _agreement(arguments: argparse.Namespace) -> None:
    from brgsa_training.summarize.agreement import agreement_text, compare, sheet_text, write_agreement
    from brgsa_training.summarize.labels import read_labels
    from brgsa_training.summarize.vocabulary import vocabulary_with

    if arguments.out:
        require_new_file(arguments.out)
    names = vocabulary_with(arguments.labels).label_set(arguments.labels) if arguments.labels else None
    tables = {str(path): read_labels(path, arguments.id_column) for path in arguments.tables}
    reference = read_labels(arguments.reference, arguments.id_column)
    options = (names, arguments.uncertain, arguments.samples, arguments.seed)
    results = compare(tables, (str(arguments.reference), reference), *options)
    if arguments.out:
        write_agreement(arguments.out, results)
    print(sheet_text(results) if len(tables) > 1 else agreement_text(*results.values()))
    everywhere = [set(table.ids) for table in (*tables.values(), reference)]
    only = len(set.union(*everywhere) - set.intersection(*everywhere))
    if only:
        print(f"{only} reports are not in all tables and left out")
