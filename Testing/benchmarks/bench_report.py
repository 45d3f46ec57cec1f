"""Time and size of the HTML page and of the heat map files of one large scan (512 x 512 x 300, synthetic).

python Testing/benchmarks/bench_report.py
"""

import argparse
import tempfile
import time
from pathlib import Path

import volumes

from brgsa.abnormalities import AbnormalityList
from brgsa.heatmap import heatmaps
from brgsa.report.heatmap_file import save_heatmap
from brgsa.report.html import write_html
from brgsa.scoring import Scorer


def main():
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    abnormalities = AbnormalityList.preset("ct-rate-18")
    scorer = Scorer.from_pretrained("phantom", device="cpu", cache=False)
    print("| what | seconds | processor seconds | MB | goal |\n|---|---|---|---|---|")

    def row(what, path, goal, write):
        wall, processor = time.perf_counter(), time.process_time()
        write(path)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"| {what} | {wall:.2f} | {processor:.2f} | {path.stat().st_size / 1e6:.2f} | {goal} |")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = scorer.prepare(volumes.write_chest(folder / "chest.nii.gz"))
        scores = scorer.score_embedding(scorer.embed(scan), abnormalities)
        maps = list(heatmaps(scorer, scan, abnormalities[:5]))
        for count in (3, 5):
            row(
                f"HTML page, {count} heat maps",
                folder / "report.html",
                "2 s, 3 MB",
                lambda path, count=count: write_html(path, scores, scan, maps[:count], scorer.weights.plan.to_dict()),
            )
        for suffix in (".nii.gz", ".nrrd"):
            row(
                f"heat map, {suffix}",
                folder / f"heat{suffix}",
                "",
                lambda path: save_heatmap(path, maps[0].volume, scan.volume),
            )


if __name__ == "__main__":
    main()
