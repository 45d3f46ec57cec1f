"""The cache: what is in it, that it survives crashes and bad files, and that it is never mixed."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from waiting import wait

from brgsa.ct.volume import CTVolume, Source
from brgsa.errors import BrgSAError, InputError, UsageError
from brgsa.files.output_folder import output_folder
from brgsa.preprocess import PreprocessingPlan, to_grid
from brgsa_training.cli import main
from brgsa_training.data.cache import CACHE, COLUMNS, VolumeCache, read_manifest, write_volume
from brgsa_training.data.preprocess import preprocess
from brgsa_training.data.scan import Scan

PLAN = PreprocessingPlan(spacing=(3.0, 3.0, 3.0), shape=(16, 12, 8))


@dataclass(frozen=True)
class MadeScan(Scan):
    """A scan that is made, not read; `fault` says what goes wrong."""

    number: int = 0
    fault: str = ""

    def read(self, fidelity):
        if self.fault == "input":
            raise InputError(f"{self.path}: is cut short.")
        if self.fault == "strange":
            raise ZeroDivisionError("float division\nby zero")
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        voxels = np.random.default_rng(self.number).integers(-1000, 1000, (40, 30, 20)).astype(np.int16)
        affine = np.diag([1.5, 1.5, 2.0, 1.0])
        return CTVolume(voxels, (1.5, 1.5, 2.0), affine, Source(self.path, "nifti", voxels.shape, affine, "int16")), "n"


def scans(count, tmp_path, **faults):
    return [
        MadeScan(f"c{n}", f"s{n // 2}", f"p{n // 2}", tmp_path / f"c{n}.nii", None, n, faults.get(f"c{n}", ""))
        for n in range(count)
    ]


def test_the_cache_holds_every_scan_on_the_grid(tmp_path):
    made = scans(3, tmp_path)
    result = preprocess(made, tmp_path / "cache", PLAN, "reference")
    assert (result.done, result.known, result.failures) == (3, 0, [])
    cache = VolumeCache.open(tmp_path / "cache")
    assert (cache.plan, cache.fidelity, list(cache.cases)) == (PLAN, "reference", ["c0", "c1", "c2"])
    assert cache.cases["c1"].study == "s0" and cache.cases["c1"].patient == "p0"
    for scan in made:
        expected, _ = to_grid(scan.read("reference")[0], PLAN, "reference")
        volume = cache.volume(scan.case)
        assert isinstance(volume, np.memmap) and volume.dtype == np.int16 and volume.flags.c_contiguous
        np.testing.assert_array_equal(volume, expected)
    assert all(problem is None for _, problem in cache.damaged())


def test_a_rerun_does_what_is_missing_and_no_more(tmp_path):
    cache = tmp_path / "cache"
    preprocess(scans(3, tmp_path), cache, PLAN)
    kept = (cache / "volumes" / "c0.npy").stat().st_mtime_ns
    (cache / "volumes" / "c1.npy").write_bytes(b"cut")
    result = preprocess(scans(4, tmp_path), cache, PLAN)
    assert (result.done, result.known) == (2, 2)
    assert (cache / "volumes" / "c0.npy").stat().st_mtime_ns == kept
    assert all(problem is None for _, problem in VolumeCache.open(cache).damaged())


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_scans_are_listed_and_the_others_are_done(tmp_path, workers):
    made = scans(6, tmp_path, c1="input", c3="strange", **({"c4": "killed"} if workers == 2 else {}))
    result = preprocess(made, tmp_path / "cache", PLAN, workers=workers)
    failed = {failure.case: failure.reason for failure in result.failures}
    assert failed.pop("c1").endswith("is cut short.") and failed.pop("c3") == "ZeroDivisionError: float division"
    assert (failed.pop("c4", "").startswith("its process was killed")) == (workers == 2) and not failed
    assert len(VolumeCache.open(tmp_path / "cache").cases) == result.done == 6 - len(result.failures)
    lines = (tmp_path / "cache" / "failures.csv").read_text().splitlines()
    assert lines[0] == "case,path,code,reason" and len(lines) == 1 + len(result.failures)
    again = preprocess(scans(6, tmp_path), tmp_path / "cache", PLAN)
    assert not again.failures and (tmp_path / "cache" / "failures.csv").read_text().count("\n") == 1


def test_several_processes_write_the_cache_that_one_writes(tmp_path):
    preprocess(scans(5, tmp_path), tmp_path / "one", PLAN)
    preprocess(scans(5, tmp_path), tmp_path / "two", PLAN, workers=2)
    assert VolumeCache.open(tmp_path / "one").cases == VolumeCache.open(tmp_path / "two").cases


def test_a_manifest_that_a_crash_cut_short_loses_one_line_only(tmp_path):
    cache = tmp_path / "cache"
    preprocess(scans(3, tmp_path), cache, PLAN)
    manifest = cache / "manifest.csv"
    manifest.write_text(manifest.read_text() + "c3,s1,p1,99")
    assert list(read_manifest(cache)) == ["c0", "c1", "c2"]
    assert preprocess(scans(4, tmp_path), cache, PLAN).done == 1
    assert len(read_manifest(cache)) == 4


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_cache import scans, PLAN, preprocess\n"
        "preprocess(scans(3000, Path('.')), sys.argv[1], PLAN)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    manifest = tmp_path / "cache" / "manifest.csv"
    wait(lambda: process.poll() is not None or (manifest.is_file() and manifest.read_text().count("\n") > 20))
    process.kill()
    process.wait()
    done = len(read_manifest(tmp_path / "cache"))
    assert 20 <= done < 3000
    result = preprocess(scans(done + 5, tmp_path), tmp_path / "cache", PLAN)
    assert result.known == done and result.done == 5
    assert all(problem is None for _, problem in VolumeCache.open(tmp_path / "cache").damaged())


def test_a_cache_made_with_another_plan_is_refused_and_left_alone(tmp_path):
    preprocess(scans(1, tmp_path), tmp_path / "cache", PLAN)
    with pytest.raises(UsageError, match=r"another plan: spacing is \[3.0, 3.0, 3.0\], not \[1.5, 3.0, 3.0\]"):
        preprocess(scans(2, tmp_path), tmp_path / "cache", replace(PLAN, spacing=(1.5, 3.0, 3.0)))
    with pytest.raises(UsageError, match="fidelity is exact, not reference"):
        preprocess(scans(2, tmp_path), tmp_path / "cache", PLAN, "reference")
    assert len(read_manifest(tmp_path / "cache")) == 1


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(UsageError, match="holds other files and no preprocessed volumes"):
        preprocess(scans(1, tmp_path), tmp_path, PLAN)


def test_two_runs_on_one_folder_are_refused(tmp_path):
    with output_folder(tmp_path / "cache", CACHE), pytest.raises(UsageError, match="is in use: process"):
        preprocess(scans(1, tmp_path), tmp_path / "cache", PLAN)


def test_a_folder_that_cannot_be_written_stops_the_run_in_one_line(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(BrgSAError, match="cannot write") as caught:
        preprocess(scans(1, tmp_path), tmp_path / "file" / "cache", PLAN)
    assert "\n" not in str(caught.value)


def test_damaged_volumes_are_found(tmp_path, capsys):
    cache = tmp_path / "cache"
    preprocess(scans(3, tmp_path), cache, PLAN)
    data = bytearray((cache / "volumes" / "c1.npy").read_bytes())
    data[-1] ^= 1
    (cache / "volumes" / "c1.npy").write_bytes(data)
    (cache / "volumes" / "c2.npy").unlink()
    assert main(["preprocess", "verify", str(cache)]) == 3
    out = capsys.readouterr()
    assert "c1 differs from its checksum" in out.out and "c2 is missing" in out.out and "2 of 3 volumes" in out.err
    with pytest.raises(InputError, match=r"c2\.npy: is missing or cut short"):
        VolumeCache.open(cache).volume("c2")


def test_a_volume_of_another_shape_is_named(tmp_path):
    preprocess(scans(1, tmp_path), tmp_path / "cache", PLAN)
    write_volume(tmp_path / "cache", "c0", np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match=r"c0\.npy: holds \(2, 2, 2\) int16"):
        VolumeCache.open(tmp_path / "cache").volume("c0")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cache.json", "{", "is damaged"),
        ("cache.json", '{"version": 7, "fidelity": "exact"}', "version 7"),
        ("manifest.csv", "a,b\n", "its columns are a, b"),
        ("manifest.csv", ",".join(COLUMNS) + "\nc0,s,p,many,0,\n", "line 2 is damaged"),
        ("manifest.csv", ",".join(COLUMNS) + "\n", "holds no volumes"),
    ],
)
def test_a_damaged_cache_is_named_in_one_line(tmp_path, name, content, message):
    preprocess(scans(1, tmp_path), tmp_path / "cache", PLAN)
    (tmp_path / "cache" / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        VolumeCache.open(tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_what_is_no_cache_is_named(tmp_path):
    with pytest.raises(InputError, match="is not a cache"):
        VolumeCache.open(tmp_path)


def test_the_command_fills_a_cache_from_real_scans(real_ct, tmp_path, capsys):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"\x1f\x8b broken")
    table = tmp_path / "scans.csv"
    good = real_ct / "cip_ct64.nrrd"
    table.write_text(f"path,case\n{good},cip\n{bad},bad\n")
    code = main(["preprocess", "folder", str(table), "--out", str(tmp_path / "cache"), "--workers", "1"])
    out = capsys.readouterr()
    assert code == 6 and "1 scans preprocessed" in out.out and "1 of 2 scans failed" in out.err
    assert VolumeCache.open(tmp_path / "cache").volume("cip").shape == (256, 256, 128)
