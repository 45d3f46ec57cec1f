"""The `brgsa-training` command: one sub-command per stage."""

import sys
from collections.abc import Sequence

from brgsa.commands.command_line import Command, run

COMMANDS = {
    "phantom": Command(
        "brgsa_training.phantom.command", "make digital chest phantoms, or train the demonstration weights"
    ),
    "summarize": Command("brgsa_training.summarize.command", "turn reports into captions and a label table"),
    "summarize review": Command(
        "brgsa_training.summarize.command", "sample summarized reports for a reader", "add_review_parser"
    ),
    "summarize apply-corrections": Command(
        "brgsa_training.summarize.command", "apply a reader's corrections, measure agreement", "add_corrections_parser"
    ),
    "summarize captions": Command(
        "brgsa_training.summarize.command", "make other captions from finished results", "add_captions_parser"
    ),
    "summarize ledger": Command(
        "brgsa_training.summarize.command", "export the answers of a language model", "add_ledger_parser"
    ),
    "vocabulary check": Command(
        "brgsa_training.summarize.command", "see what a vocabulary catches in reports", "add_vocabulary_check_parser"
    ),
    "agreement": Command(
        "brgsa_training.summarize.command",
        "compare two label tables, abnormality by abnormality",
        "add_agreement_parser",
    ),
    "preprocess": Command("brgsa_training.data.command", "put scans on the model's grid, in a cache"),
    "pretrain": Command("brgsa_training.pretrain.command", "train the model from a recipe"),
    "pretrain-image": Command(
        "brgsa_training.pretrain.command", "warm up the image encoder by masked autoencoding", "add_image_parser"
    ),
    "score-on-ray": Command("brgsa_training.cluster.command", "score many scans on a Ray cluster"),
    "evaluate": Command("brgsa_training.evaluate.command", "measure scores on a benchmark"),
    "retrieve": Command(
        "brgsa_training.evaluate.command", "measure report and volume retrieval", "add_retrieve_parser"
    ),
    "modality-gap": Command(
        "brgsa_training.evaluate.command",
        "measure the gap between image and text embeddings",
        "add_modality_gap_parser",
    ),
    "check-report": Command(
        "brgsa_training.report_check.command", "compare what a report names with what the model sees in the scan"
    ),
    "calibrate": Command(
        "brgsa_training.evaluate.command",
        "fit thresholds and probabilities on calibration data",
        "add_calibrate_parser",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code; "summarize review" and the like are one name of two words."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if " ".join(arguments[:2]) in COMMANDS:
        arguments[:2] = [" ".join(arguments[:2])]
    description = "Train and measure BrgSA: summarize reports, pretrain with the knowledge bank, run benchmarks."
    return run("brgsa-training", description, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
