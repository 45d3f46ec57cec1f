"""Time the bootstraps of both protocols against a loop over scikit-learn like the released one.

    python Testing/benchmarks/bench_evaluate.py

3,039 volumes of 1,304 patients, 18 abnormalities. The loop is measured on 50 iterations, the values of those 50 are
compared, and its time is scaled to 5,000.
"""

import resource
import time

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from brgsa_training.evaluate.bootstrap import cluster_counts
from brgsa_training.evaluate.metrics import RankedScores
from brgsa_training.evaluate.paper import case_metrics, evaluate_paper

VOLUMES, PATIENTS, ABNORMALITIES, MEASURED = 3039, 1304, 18, 50


def cohort(seed=0):
    """Return scores, labels and patients; scans of one patient share labels and most of the score."""
    rng = np.random.default_rng(seed)
    patients = np.sort(np.concatenate([np.arange(PATIENTS), rng.integers(0, PATIENTS, VOLUMES - PATIENTS)]))
    labels = (rng.random((PATIENTS, ABNORMALITIES)) < np.linspace(0.04, 0.45, ABNORMALITIES))[patients].astype(float)
    shared = rng.normal(size=(PATIENTS, ABNORMALITIES))[patients]
    noise = rng.normal(size=(VOLUMES, ABNORMALITIES))
    return 0.1 * (np.sqrt(0.95) * shared + np.sqrt(0.05) * noise + 1.2 * labels), labels, patients


def scikit_learn_loop(scores, labels, thresholds, iterations):
    """One iteration after another, one abnormality after another, every metric by its scikit-learn function."""
    rows = []
    for iteration in range(iterations):
        np.random.seed(iteration)
        drawn = np.random.choice(range(len(labels)), len(labels))
        s, y = scores[drawn], labels[drawn]
        values = []
        for c in range(scores.shape[1]):
            called = (s[:, c] > thresholds[c]).astype(int)
            values.append(
                [
                    roc_auc_score(y[:, c], s[:, c]),
                    average_precision_score(y[:, c], s[:, c]),
                    f1_score(y[:, c], called, average="weighted"),
                    accuracy_score(y[:, c], called),
                    precision_score(y[:, c], called, zero_division=0),
                    recall_score(y[:, c], called),
                ]
            )
        rows.append((np.array(values), case_metrics(s, y)))
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


class Stopwatch:
    """Seconds that passed and seconds of the processor, which tell a busy machine from a slow program."""

    def __enter__(self):
        self.wall, self.processor = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_):
        self.wall += time.perf_counter()
        self.processor += time.process_time()


def main():
    scores, labels, patients = cohort()
    print(f"{VOLUMES} volumes, {PATIENTS} patients, {ABNORMALITIES} abnormalities\n")

    with Stopwatch() as ours:
        result = evaluate_paper(scores, labels)
    with Stopwatch() as loop:
        by_class, by_case = scikit_learn_loop(scores, labels, result.thresholds, MEASURED)
    names = ("AUROC", "AUPRC", "F1", "Accuracy", "Precision", "Recall")
    worst = max(np.abs(result.samples[name][:MEASURED] - by_class[:, :, i]).max() for i, name in enumerate(names))
    worst = max(worst, np.abs(result.samples["Recall@1"][:MEASURED] - by_case[:, 0]).max())
    worst = max(worst, np.abs(result.samples["Precision@3"][:MEASURED] - by_case[:, 1]).max())
    scale = len(result.samples["AUROC"]) / MEASURED
    print("| protocol paper, 5,000 bootstraps, all metrics | seconds | processor seconds |")
    print("|---|---|---|")
    print(f"| scikit-learn loop, {MEASURED} iterations | {loop.wall:.2f} | {loop.processor:.2f} |")
    print(f"| the same, scaled | {loop.wall * scale:.1f} | {loop.processor * scale:.1f} |")
    print(f"| this project | {ours.wall:.2f} | {ours.processor:.2f} |")
    print(f"| ratio | {loop.wall * scale / ours.wall:.0f} | {loop.processor * scale / ours.processor:.0f} |")
    print(f"\nlargest difference over the {MEASURED} iterations: {worst:.1e}\n")

    with Stopwatch() as clustered:
        ranked = [RankedScores(scores[:, c], labels[:, c]) for c in range(ABNORMALITIES)]
        areas = [[column.areas(counts)[0] for column in ranked] for _, counts in cluster_counts(patients, 2000)]
    macro = np.concatenate([np.mean(chunk, axis=0) for chunk in areas])
    print("| patient-clustered, 2,000 bootstraps | seconds | processor seconds |")
    print("|---|---|---|")
    print(f"| AUROC and AUPRC of 18 abnormalities | {clustered.wall:.2f} | {clustered.processor:.2f} |")
    print(f"\nmacro AUROC, 95 %: {np.percentile(macro, 2.5):.4f} to {np.percentile(macro, 97.5):.4f}")
    print(f"peak memory of this whole run: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
