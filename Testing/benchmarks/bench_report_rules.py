"""Print how the rules backend agrees with human labels: 18 CT-RATE labels, 15 long-tail labels, and RadBERT's labels.

    python Testing/benchmarks/bench_report_rules.py [--labels FILE.jsonl]

FILE.jsonl may be another file of the layout of `ctrate_manual_labels_50.jsonl` (report_text, labels18_manual).
"""

import argparse
import json
import os
import sys
from pathlib import Path

from brgsa_training.summarize.agreement import agree, agreement_text, table_of
from brgsa_training.summarize.findings import decide
from brgsa_training.summarize.labels import UNCERTAIN_AS, VALUES
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.vocabulary import load_vocabulary

SHARED = Path(os.environ.get("BRGSA_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def show(title: str, records: list[dict], key: str, label_set: str, uncertain: str = UNCERTAIN_AS[0]) -> None:
    """Print one table; its header says what an uncertain label counts as."""
    vocabulary = load_vocabulary()
    names = vocabulary.label_set(label_set)
    backend = RulesBackend(vocabulary)
    rows = []
    for record in records:
        text = record.get("report_text") or f"{record['findings']}  {record['impression']}"
        said = decide(backend.findings(text), vocabulary)
        rows.append([int(VALUES[said[name]]) if name in said else None for name in names])
    ids = [record["id"] for record in records]
    truth = table_of(ids, names, [[record[key][name] for name in names] for record in records])
    print(f"\n{title}\n{agreement_text(agree(table_of(ids, names, rows), truth, uncertain=uncertain))}")


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="other human-labelled reports")
    arguments = parser.parse_args()
    if arguments.labels:
        show(f"Human labels, {arguments.labels.name}", records(arguments.labels), "labels18_manual", "ct-rate-18")
        return 0
    folder = SHARED / "data" / "reports"
    if not folder.exists():
        print(f"skipped: {folder} is not there (set BRGSA_SHARED)")
        return 0
    manual, valid = records(folder / "ctrate_manual_labels_50.jsonl"), records(folder / "ctrate_valid_60.jsonl")
    show("Rules against human labels (read while the rules were written)", manual, "labels18_manual", "ct-rate-18")
    # CT-RATE-LT counts a suspected pneumonia, tuberculosis or mass.
    show("Rules against the checked long-tail labels", valid, "labels_lt15", "ct-rate-lt-15", "positive")
    show("Rules against the labels that CT-RATE ships (RadBERT)", valid, "labels18", "ct-rate-18")
    return 0


if __name__ == "__main__":
    sys.exit(main())
