"""The commands as a newcomer types them: tables, exit codes, one-line errors.

Most run inside the process of the tests (`in_process`); where starting up, the locale, a damaged installation or what
is written counts, in one of their own (`brgsa`).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import brgsa as brgsa_package
from brgsa.abnormalities import AbnormalityList


def brgsa(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "brgsa", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def assert_one_line_error(done, code, *words):
    """The last line names the problem; no traceback; the documented exit code."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("brgsa: error: ") or "error: argument" in last, done.stderr
    for word in words:
        assert str(word) in last, done.stderr


def test_score_prints_a_table_and_writes_the_folder(torso_path, tmp_path):
    done = brgsa("score", torso_path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name in AbnormalityList.preset("ct-rate-18").names:
        assert name in done.stdout
    assert (tmp_path / "out" / "scores.csv").exists()
    assert "scoring on cpu in" in done.stderr and "1 scored, 0 refused, 0 failed, 1 flagged" in done.stderr


def test_all_real_scans_are_scored_in_one_call(real_ct, tmp_path, in_process):
    done = in_process("score", real_ct, "--out", tmp_path / "out", "--abnormalities", "Lung nodule; Emphysema")
    refused = {
        "nonchest_totalseg_abdomen": "not-chest",
        "totalseg_thoracic_cta_crop": "lungs-cut",
        "pyradiomics_lung1_label": "values-not-hu",
    }
    assert done.returncode == 6, done.stderr
    assert "7 scored, 3 refused, 0 failed, 6 flagged" in done.stderr
    for case, code in refused.items():
        assert f"{case}: " in done.stderr and f"refused: {code}" in done.stderr
    done = in_process(
        "score", real_ct, "--out", tmp_path / "out", "--abnormalities", "Lung nodule; Emphysema", "--force"
    )
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for case, code in refused.items():
        assert f"forced {code}" in lines[case]
    assert "ricord1a_001012_covid_dicom_jpegll" in lines and "lungdx_a0002_dicom" in lines


def test_check_prints_findings_and_json(real_ct, torso_path, in_process):
    done = in_process("check", real_ct / "nonchest_totalseg_abdomen.nii.gz", torso_path)
    assert_one_line_error(done, 6, "1 of 2", "nonchest_totalseg_abdomen")
    assert "error not-chest" in done.stdout
    report = json.loads(in_process("check", "--json", torso_path).stdout)["cases"][0]
    assert report["axes"] == "LPS" and report["spacing"] == [6.0, 6.0, 6.0]
    assert_one_line_error(in_process("check", real_ct / "nonchest_totalseg_abdomen.nii.gz"), 3, "would be refused")


def test_check_says_what_scoring_with_the_same_weights_says(save_lungs_behind, tmp_path, in_process):
    path = save_lungs_behind(150)
    checked = json.loads(in_process("check", "--json", path).stdout)["cases"][0]["findings"]
    assert in_process("score", path, "--out", tmp_path / "out", "--force").returncode == 0
    (scores,) = (tmp_path / "out").rglob("scores.json")
    assert checked == json.loads(scores.read_text(encoding="utf-8"))["findings"]
    assert "384 x 288 x 384 mm" in " ".join(row["message"] for row in checked)
    assert_one_line_error(in_process("check", "--weights", "other", path), 4, "other")


def test_embed_writes_vectors(torso_path, tmp_path, in_process):
    done = in_process("embed", torso_path, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "embeddings" / "torso.npz", allow_pickle=False) as stored:
        assert stored["image"].ndim == 1 and stored["image"].dtype == np.float32


def test_abnormalities_are_listed_shown_and_converted(tmp_path, in_process):
    assert "ct-rate-18" in in_process("abnormalities", "list").stdout
    assert "There is Cardiomegaly" in in_process("abnormalities", "show", "ct-rate-18").stdout
    done = in_process("abnormalities", "convert", "ct-rate-18", tmp_path / "list.csv")
    assert done.returncode == 0, done.stderr
    assert AbnormalityList.read(tmp_path / "list.csv").names == AbnormalityList.preset("ct-rate-18").names


def test_weights_are_listed_described_verified_and_bundled(tmp_path, in_process):
    assert "phantom" in in_process("weights", "list").stdout
    assert json.loads(in_process("weights", "info", "phantom").stdout)["name"] == "phantom"
    assert "agrees with its checksum" in in_process("weights", "verify", "phantom").stdout
    assert in_process("weights", "export-bundle", "phantom", tmp_path / "b.zip").returncode == 0
    done = in_process("weights", "import", tmp_path / "b.zip", "--out", tmp_path / "w")
    assert done.returncode == 0 and (tmp_path / "w" / "model.safetensors").exists(), done.stderr


def test_doctor_reports_packages_device_memory_and_weights(in_process):
    diagnosis = json.loads(in_process("doctor", "--json").stdout)
    found = {row["what"]: row for row in diagnosis["rows"]}
    assert diagnosis["ready"] and found["torch"]["state"] == "ok" and "GB" in found["free memory"]["found"]
    assert found["weights phantom"]["state"] == "ok"
    text = in_process("doctor")
    assert text.returncode == 0 and "device in use" in text.stdout


def bare_python(*arguments):
    """A Python that sees only the standard library and the extension's folder, as in a fresh 3D Slicer."""
    folder = str(Path(brgsa_package.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-S", "-m", "brgsa", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": folder},
    )


@pytest.mark.parametrize("error", ["ImportError('DLL load failed')", "OSError('libtorch.so: not found')"])
def test_doctor_says_that_torch_is_broken(tmp_path, error):
    (tmp_path / "torch.py").write_text(f"raise {error}")
    done = brgsa("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 4 and "cannot be loaded" in done.stdout and "Install torch again" in done.stdout


def test_a_package_that_cannot_be_loaded_is_a_matter_of_setup(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('DLL load failed')")
    (tmp_path / "a.nii.gz").touch()
    done = brgsa("embed", tmp_path / "a.nii.gz", "--out", tmp_path / "out", PYTHONPATH=str(tmp_path))
    assert_one_line_error(done, 4, "DLL load failed", "brgsa doctor")


def test_check_gives_every_scan_the_same_keys(torso_path, tmp_path, in_process):
    (tmp_path / "empty.nii.gz").touch()
    done = in_process("check", "--json", torso_path, tmp_path / "empty.nii.gz")
    good, bad = json.loads(done.stdout)["cases"]
    assert done.returncode == 6 and good.keys() == bad.keys() and bad["findings"][0]["code"] == "unreadable"


def test_embed_looks_at_its_inputs_before_it_loads_weights(tmp_path, in_process):
    done = in_process("embed", tmp_path / "none.nii.gz", "--out", tmp_path / "out", "--weights", "nonesuch")
    assert_one_line_error(done, 3, "none.nii.gz")


def test_doctor_says_how_to_install_what_is_missing():
    done = bare_python("doctor")
    assert done.returncode == 4 and "pip install numpy torch transformers" in done.stdout
    assert bare_python("abnormalities", "list").returncode == 0


def test_a_command_whose_packages_are_missing_says_so(tmp_path):
    assert_one_line_error(bare_python("score", "x.nii.gz", "--out", tmp_path), 4, "numpy", "brgsa doctor")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("abnormalities", "list"), ("score", "--help"), ("weights", "list")]
)
def test_light_commands_import_no_torch(arguments):
    code = "import sys; from brgsa.commands.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'transformers', 'monai'} & set(sys.modules); print('heavy', heavy, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert "heavy set()" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "command", [[], ["score"], ["embed"], ["check"], ["abnormalities"], ["weights"], ["doctor"], ["worker"]]
)
def test_every_command_has_help(command, in_process):
    done = in_process(*command, "--help")
    assert done.returncode == 0 and "usage: brgsa" in done.stdout


@pytest.mark.parametrize("name", ["missing.nii.gz", "empty.nii.gz", "text.nii.gz", "nothing here"])
def test_bad_scans_give_one_line_and_code_3(tmp_path, in_process, name):
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    (tmp_path / "text.nii.gz").write_text("this is not an image")
    (tmp_path / "nothing here").mkdir()
    done = in_process("score", tmp_path / name, "--out", tmp_path / "out")
    assert_one_line_error(done, 3, name)
    assert not list(tmp_path.rglob("scores.json"))


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--abnormalities", "ct-rate-81"], 2, "ct-rate-81"),
        (["--abnormalities", ";"], 2, ""),
        (["--device", "tpu"], 2, "tpu"),
        (["--device", "auto:1"], 2, "auto:1"),
        (["--weights", "~nobody-of-this-name/w"], 4, "~nobody-of-this-name/w"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--weights", "nonesuch"], 4, "nonesuch"),
        (["--weights", "brgsa"], 4, "weights import"),
        (["--shard", "5/2"], 2, "5/2"),
        (["--series", "1.2.3"], 2, "--series"),
        (["--score", "best"], 2, "best"),
        (["--prompts", "many"], 2, "many"),
        (["--fidelity", "nearly"], 2, "nearly"),
    ],
)
def test_bad_options_are_named(torso_path, tmp_path, in_process, options, code, word):
    done = in_process("score", torso_path, "--out", tmp_path / "out", *options)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and word in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("scores.json"))


def test_paths_with_spaces_and_other_letters_work(torso_path, tmp_path, in_process):
    folder = tmp_path / "Thorax Aufnahme für Ärzte 胸"
    folder.mkdir()
    (folder / "scan é.nii.gz").write_bytes(torso_path.read_bytes())
    done = in_process("score", folder, "--out", folder / "Ergebnis ü")
    assert done.returncode == 0, done.stderr
    assert (folder / "Ergebnis ü" / "scores.csv").exists()


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_names_that_are_not_utf8_are_scored_and_listed(torso_path, tmp_path, in_process, ending):
    """As old archives on Linux have them: a name in Latin-1."""
    import SimpleITK

    folder, out, plain = tmp_path / "scans", tmp_path / "out", tmp_path / f"plain.{ending}"
    folder.mkdir()
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(torso_path)), str(plain))
    try:
        plain.rename(os.fsdecode(os.fsencode(folder) + b"/M\xfcller." + ending.encode()))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for _ in range(2):
        done = in_process("score", folder, "--out", out, "--abnormalities", "Lung nodule;")
        assert done.returncode == 0, done.stderr
    assert "1 were done before" in done.stderr
    assert rf"M\udcfcller.{ending}" in (out / "scores.csv").read_text(encoding="utf-8")


def test_a_dicom_name_that_simpleitk_cannot_take_is_refused_in_one_line(tmp_path, save_dicom):
    """SimpleITK ends the process for such a name."""
    plain = tmp_path / "plain.dcm"
    save_dicom(plain, np.zeros((4, 4), np.int16))
    name = os.fsencode(tmp_path) + b"/M\xfcller.dcm"
    try:
        plain.rename(os.fsdecode(name))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert_one_line_error(brgsa("check", os.fsdecode(name)), 3, "not UTF-8", "rename")


def test_output_into_a_file_is_utf8_whatever_the_locale(torso_path, tmp_path):
    shutil.copy(torso_path, tmp_path / "胸部.nii.gz")
    command = [sys.executable, "-m", "brgsa", "check", str(tmp_path / "胸部.nii.gz")]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and "胸部" in done.stdout.decode("utf-8"), done.stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo terminals")
def test_a_terminal_shows_what_it_cannot_encode_as_an_escape(tmp_path):
    terminal, stdout = os.openpty()
    command = [sys.executable, "-m", "brgsa", "abnormalities", "convert", "Größe x;", str(tmp_path / "Größe.json")]
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    os.close(stdout)
    assert done.returncode == 0 and rb"Gr\xf6\xdfe.json" in os.read(terminal, 10_000), done.stderr
    os.close(terminal)


def test_weights_that_are_no_file_or_no_bundle_are_named(tmp_path, in_process):
    options = ("--out", tmp_path / "w")
    assert_one_line_error(in_process("weights", "import", tmp_path / "none.zip", *options), 4, "none.zip")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no more")
    assert_one_line_error(in_process("weights", "import", tmp_path / "cut.zip", *options), 2, "cut.zip", "--text")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_in_one_line(torso_path, tmp_path, in_process, monkeypatch):
    """The output folder lies on a file system of 64 kB that is full."""
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        (mount / "filler").write_bytes(b"x" * 60_000)
        assert_one_line_error(
            in_process("score", torso_path, "--out", mount / "out"), 1, "cannot write", "No space left"
        )
        assert not [path for path in mount.rglob("*") if path.name.endswith(".part")]
        monkeypatch.setenv("BRGSA_CACHE", str(mount / "cache"))
        done = in_process("score", torso_path, "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr  # a cache that cannot be written costs time, not results
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_an_unwritable_output_folder_is_named(torso_path, tmp_path, in_process):
    (tmp_path / "file").write_text("I am a file")
    assert_one_line_error(in_process("score", torso_path, "--out", tmp_path / "file" / "out"), 1, "cannot write")


def test_no_command_writes_outside_its_output_and_the_cache(torso_path, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.nii.gz").write_bytes(torso_path.read_bytes())
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "BRGSA_CACHE": str(tmp_path / "cache")}
    assert brgsa("score", scans, "--out", tmp_path / "out", **environment).returncode == 0
    assert [path.name for path in scans.iterdir()] == ["a.nii.gz"]
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("error", ["MemoryError()", "RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')"])
def test_memory_that_runs_out_anywhere_in_a_command_is_exit_5(in_process, monkeypatch, error):
    def fails(arguments):
        raise eval(error)

    monkeypatch.setattr("brgsa.commands.doctor.run", fails)
    assert_one_line_error(in_process("doctor"), 5, "out of memory")


@pytest.mark.parametrize("command", ["score", "embed", "index"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_weights_are_loaded(
    in_process, torso_path, tmp_path, command
):
    (tmp_path / "file").write_text("in the way")
    done = in_process(command, torso_path, "--out", tmp_path / "file" / "out", "--weights", "no-such-weights")
    assert_one_line_error(done, 1, "cannot write", tmp_path / "file")
    assert "loading weights" not in done.stderr


def test_the_trial_of_a_folder_leaves_nothing(in_process, torso_path, tmp_path):
    done = in_process("score", torso_path, "--out", tmp_path / "a" / "b", "--weights", "no-such-weights")
    assert done.returncode == 4 and not list(tmp_path.iterdir())
