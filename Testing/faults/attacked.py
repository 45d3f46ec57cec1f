"""The commands under attack, and a folder in which one is attacked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from folder_contents import contents
from killing import Child
from process_table import new_mark

from brgsa.commands.main import main as brgsa
from brgsa_training.cli import main as training


@dataclass(frozen=True)
class Command:
    """A command under attack.

    Attributes:
        main, arguments: what is called, with the folder of the material for {material}; it writes to `out`.
        records: patterns of the files that say what is done: none of them may be written again.
        manifest: table whose first column names those of the records that count; without it all do.
        other: arguments of a second run for the same folder, with other scans; the same ones without it.
        refused: what the second run is told when the first is done, where one folder cannot hold both.
        changes: kills before a change of a file, at most.
        moments: kills at random moments, at least.
    """

    main: Callable
    arguments: str
    records: tuple[str, ...] = ()
    manifest: str = ""
    other: str = ""
    refused: str = ""
    changes: int = 25
    moments: int = 20


PRETRAIN = (
    "--config {material}/recipe.yaml --data.cache {material}/cache --data.captions {material}/phantoms/captions.json "
    "--data.vocabulary {material}/vocab.txt --out out --resume auto"
)
IMAGE = (
    "--data.cache {material}/cache --data.crop null --model.patch_size [4,4,4] --model.position_grid [2,2,2] "
    "--model.vision_width 24 --model.vision_depth 1 --model.vision_heads 2 --model.vision_mlp_size 48 "
    "--training.batch_size 4 --training.steps 12 --training.save_every 2 --training.device cpu "
    "--training.precision fp32 --out out --resume auto"
)
SCORE = "--out out --device cpu --abnormalities {material}/list.txt --heatmap Emphysema --report html"
INDEX = "--out out --device cpu"
GENERATE = "phantom generate --out out --count"
PREPROCESS = "--plan {material}/plan.json --out out --workers"
OTHER_OPTIONS = "was made with other options"
COMMANDS = {
    "score": Command(
        brgsa,
        f"score {{material}}/scans {SCORE}",
        records=("cases/*/scores.json",),
        other=f"score {{material}}/others {SCORE}",
    ),
    "index": Command(
        brgsa,
        f"index {{material}}/scans {INDEX}",
        records=("unfinished/embeddings/*.npz",),
        other=f"index {{material}}/others {INDEX}",
    ),
    "embed": Command(
        brgsa,
        f"embed {{material}}/scans {INDEX}",
        records=("embeddings/*.npz",),
        other=f"embed {{material}}/others {INDEX}",
        changes=10,
        moments=6,
    ),
    "generate": Command(
        training,
        f"{GENERATE} 20 --masks --workers 1",
        records=("volumes/*.nii.gz",),
        other=f"{GENERATE} 20 --masks --workers 1 --seed 1",
        refused=OTHER_OPTIONS,
        changes=20,
        moments=10,
    ),
    "generate, 2 processes": Command(
        training,
        f"{GENERATE} 60 --workers 2",
        records=("volumes/*.nii.gz",),
        other=f"{GENERATE} 60 --workers 2 --seed 1",
        refused=OTHER_OPTIONS,
        changes=0,
        moments=16,
    ),
    "preprocess": Command(
        training,
        f"preprocess folder {{material}}/scans {PREPROCESS} 1",
        records=("volumes/*.npy",),
        manifest="manifest.csv",
        other=f"preprocess folder {{material}}/others {PREPROCESS} 1",
        changes=20,
        moments=10,
    ),
    "preprocess, 2 processes": Command(
        training,
        f"preprocess folder {{material}}/scans {PREPROCESS} 2",
        records=("volumes/*.npy",),
        manifest="manifest.csv",
        other=f"preprocess folder {{material}}/others {PREPROCESS} 2",
        changes=0,
        moments=16,
    ),
    "summarize, rules": Command(
        training,
        "summarize {material}/reports.jsonl --out out",
        other="summarize {material}/reports.jsonl {material}/others.jsonl --out out",
    ),
    "pretrain": Command(
        training,
        f"pretrain {PRETRAIN}",
        other=f"pretrain {PRETRAIN} --training.seed 2",
        refused="training.seed",
        changes=30,
    ),
    "pretrain-image": Command(
        training,
        f"pretrain-image {IMAGE}",
        other=f"pretrain-image {IMAGE} --training.seed 2",
        refused="training.seed",
        changes=12,
        moments=8,
    ),
    "train-demo": Command(
        training,
        "phantom train-demo --recipe {material}/demonstration.yaml --workers 1 --out out",
        changes=6,
        moments=4,
    ),
}


class Round:
    """One folder in which a command is killed and goes on, with files of the user's beside and among its own."""

    def __init__(self, command: Command, material: Path, folder: Path):
        self.command, self.folder, self.out = command, folder / "work", folder / "work" / "out"
        given = command.arguments, command.other or command.arguments
        self.arguments, self.other = ([part.format(material=material) for part in text.split()] for text in given)
        self.mark = new_mark() | {"BRGSA_CACHE": str(folder / "cache")}
        self.foreign: dict[Path, bytes] = {}
        self.done: dict[Path, tuple[int, int]] = {}
        for name in ("notes.txt", "out.old/scores.csv", ".out.part", ".scores.csv", "out2/run.json", "data-1/scan.nii"):
            self.plant(self.folder / name)

    def plant(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"mine: {path.name}".encode())
        self.foreign[path] = path.read_bytes()

    def start(self, prepare: Callable[[], None] = lambda: None) -> Child:
        return Child(self.command.main, self.arguments, self.folder, self.mark, prepare)

    def start_other(self) -> Child:
        return Child(self.command.main, self.other, self.folder, self.mark)

    def after_kill(self) -> None:
        self.check()
        if any(self.out.glob("[!.]*")):
            self.plant(self.out / "my notes.txt")

    def finish(self) -> dict[str, str]:
        """Let the command end by itself and say what it left."""
        code = self.start().wait()
        assert code == 0, self.log()[-2000:]
        self.check()
        parts = [path for path in self.folder.rglob("*") if ".part" in path.name and path not in self.foreign]
        assert not parts, "parts of files of killed runs are left"
        return contents(self.out, self.foreign)

    def log(self) -> str:
        """What the runs of this round have printed."""
        return (self.folder.parent / "log.txt").read_text()

    def check(self) -> None:
        """Nothing of the user's was touched, and nothing that was done is done again."""
        for path, content in self.foreign.items():
            assert path.read_bytes() == content, f"{path} was touched"
        for path, state in self.done.items():
            assert not path.exists() or identity(path) == state, f"{path} was made again"
        self.done |= {path: identity(path) for path in self.records()}

    def records(self) -> list[Path]:
        """The files that say what is done."""
        found = [path for pattern in self.command.records for path in self.out.glob(pattern)]
        if self.command.manifest:
            manifest = self.out / self.command.manifest
            lines = manifest.read_text(encoding="utf-8").split("\n")[:-1] if manifest.exists() else []
            found = [path for path in found if path.stem in {line.partition(",")[0] for line in lines}]
        return [path for path in found if not path.name.startswith(".")]


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
