"""What the Slicer Extensions Index and the packager look at: CMake files, JSON, s4ext, icon, what gets installed."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST_WAIT

REPOSITORY = Path(__file__).resolve().parents[2]
EXTENSION = REPOSITORY / "BrgSAExtension"
TRAINING = REPOSITORY / "BrgSATraining"
CATALOG = json.loads((REPOSITORY / "BrgSA.json").read_text(encoding="utf-8"))
CMAKE = dict(
    re.findall(r'^set\((EXTENSION_\w+) "(.*)"\)$', (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8"), re.M)
)
S4EXT = dict(re.findall(r"^(?!#)(\w+) ?(.*)$", (REPOSITORY / "BrgSA.s4ext").read_text(encoding="utf-8"), re.M))

# A package "Slicer" with the macros of the real one that the CMake files call; installs what they are given.
FAKE_SLICER = """
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "qt-scripted-modules")
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/Use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
"""
FAKE_USE = """
include(CMakeParseArguments)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown arguments: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MODULE_SCRIPTS} ${MODULE_RESOURCES})
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "missing: ${file}")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "qt-scripted-modules/${folder}")
  endforeach()
endmacro()
macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR" "TARGET_NAME;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "${MY_INSTALL_DIR}/${folder}")
  endforeach()
endmacro()
function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT" "" ${ARGN})
  get_filename_component(name "${TEST_SCRIPT}" NAME_WE)
  add_test(NAME py_${name} COMMAND "${CMAKE_COMMAND}" -E true)
endfunction()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that Slicer would install the extension into, made by the CMake files themselves."""
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    folder = tmp_path_factory.mktemp("cmake")
    (folder / "SlicerConfig.cmake").write_text(FAKE_SLICER)
    (folder / "Use.cmake").write_text("enable_testing()\n" + FAKE_USE)
    (folder / "Nothing.cmake").write_text("")
    values = {
        "Slicer_DIR": folder,
        "BUILD_TESTING": "ON",
        "CMAKE_INSTALL_PREFIX": folder / "installed",
        "CMAKE_C_COMPILER_WORKS": 1,
        "CMAKE_CXX_COMPILER_WORKS": 1,
    }
    options = [f"-D{name}={value}" for name, value in values.items()]
    configure = ["cmake", "-S", REPOSITORY, "-B", folder / "build", *options]
    for command in (configure, ["cmake", "--install", folder / "build"]):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=LONGEST_WAIT)
        assert done.returncode == 0, done.stderr + done.stdout
    return folder / "installed" / "qt-scripted-modules"


def wanted_files():
    """Every file below BrgSAExtension and of brgsa_training that the running extension needs."""
    places = [(EXTENSION, path) for path in EXTENSION.rglob("*")]
    places += [(TRAINING, path) for path in (TRAINING / "brgsa_training").rglob("*")]
    files = (path.relative_to(top) for top, path in places if path.is_file())
    return {path for path in files if "__pycache__" not in path.parts and path.name != "CMakeLists.txt"}


def test_the_cmake_files_install_every_file_of_the_extension(installed):
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    assert found == wanted_files()


def test_every_module_that_the_installed_code_imports_is_installed(installed):
    present = {str(path.relative_to(installed).with_suffix("")).replace("/", ".") for path in installed.rglob("*.py")}
    packages = {name.removesuffix(".__init__") for name in present}
    for path in installed.rglob("*.py"):
        here = list(path.relative_to(installed).parent.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                start = here[: len(here) - node.level + 1] if node.level else []
                name = ".".join(filter(None, [*start, node.module]))
                if name.partition(".")[0] in ("brgsa", "brgsa_training", "BrgSALib"):
                    assert name in packages, f"{path}: {name}"


def test_an_installed_extension_checks_a_report_with_no_package_at_all(installed, tmp_path):
    rows = [{"name": "Lung nodule", "score": 0.1, "threshold": 0.2, "probability": None, "positive": False}]
    record = {"version": 1, "case": "CT", "scores": rows, "findings": [], "messages": [], "settings": {}}
    (tmp_path / "scores.json").write_text(json.dumps(record), encoding="utf-8")
    # -S leaves out site-packages
    command = [
        sys.executable,
        "-S",
        "-m",
        "brgsa_training",
        "check-report",
        str(tmp_path / "scores.json"),
        "-",
        "--json",
    ]
    text = "A lung nodule is seen."
    done = subprocess.run(
        command, cwd=installed, input=text, env={}, capture_output=True, text=True, timeout=LONGEST_WAIT
    )
    (row,) = json.loads(done.stdout)["abnormalities"]
    assert row["verdict"] == "report only" and row["evidence"] == [text], done.stderr


@pytest.mark.slow
def test_an_installed_extension_scores_from_the_command_line(installed, real_ct, tmp_path):
    site_packages = next(path for path in sys.path if path.endswith("site-packages"))
    # -S leaves out .pth files, so that only the installed folder can give `brgsa`
    environment = {
        "PYTHONPATH": os.pathsep.join([str(installed), site_packages]),
        "BRGSA_CACHE": str(tmp_path / "cache"),
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
    }
    where = [sys.executable, "-S", "-c", "import brgsa; print(brgsa.__file__)"]
    shown = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert shown.stdout.startswith(str(installed))
    command = [sys.executable, "-S", "-m", "brgsa", "score", str(real_ct / "cip_ct64.nrrd"), "--out", "out"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("case,path,abnormality,score") and len(rows) == 19


def test_the_catalog_entry_has_what_schema_1_0_1_asks_for():
    assert set(CATALOG) <= {
        "$schema",
        "build_dependencies",
        "build_subdirectory",
        "category",
        "enabled",
        "scm_revision",
        "scm_type",
        "scm_url",
        "tier",
    }
    assert CATALOG["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert CATALOG["tier"] in range(1, 6)
    assert CATALOG["category"] in ("Analysis", "Quantification", "Chest Imaging Platform", "Informatics")
    assert not re.fullmatch(r"[0-9a-f]{40}", CATALOG["scm_revision"])


def test_names_addresses_and_categories_agree():
    url = CATALOG["scm_url"].removesuffix(".git")
    assert url.startswith("https://") and url.rpartition("/")[2] == "SlicerBrgSA"
    assert CMAKE["EXTENSION_HOMEPAGE"] == url == S4EXT["homepage"] == S4EXT["scmurl"].removesuffix(".git")
    assert CMAKE["EXTENSION_CATEGORY"] == CATALOG["category"] == S4EXT["category"]
    assert CMAKE["EXTENSION_DEPENDS"].split() == CATALOG["build_dependencies"] == S4EXT["depends"].split()
    assert CMAKE["EXTENSION_DESCRIPTION"] == S4EXT["description"]
    assert CMAKE["EXTENSION_ICONURL"] == S4EXT["iconurl"]
    assert CMAKE["EXTENSION_SCREENSHOTURLS"] == S4EXT["screenshoturls"]
    assert CATALOG["scm_revision"] == S4EXT["scmrevision"]
    assert "project(BrgSA)" in (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f'categories = [translate("qSlicerAbstractCoreModule", "{CATALOG["category"]}")]' in (
        EXTENSION / "BrgSA.py"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_pictures_named_in_the_catalog_are_pictures_in_the_repository(key):
    for url in CMAKE[key].split():
        path = REPOSITORY / url.partition("/main/")[2]
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "name",
    ["BrgSA.json", "BrgSA.s4ext", "CMakeLists.txt", "BrgSAExtension/CMakeLists.txt", "BrgSATraining/CMakeLists.txt"],
)
def test_description_files_have_unix_line_ends(name):
    content = (REPOSITORY / name).read_bytes()
    assert b"\r" not in content and content.endswith(b"\n")


def test_the_module_file_imports_only_what_every_slicer_has():
    tree = ast.parse((EXTENSION / "BrgSA.py").read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    assert names - set(sys.stdlib_module_names) <= {"vtk", "numpy", "slicer", "qt", "ctk"}


def test_the_module_file_stays_thin():
    assert len((EXTENSION / "BrgSA.py").read_text(encoding="utf-8").splitlines()) < 500


def test_the_requirements_can_be_read_by_slicers_parser_and_leave_torch_to_its_extension():
    from packaging.requirements import Requirement

    lines = (EXTENSION / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [Requirement(line).name for line in lines if line and not line.startswith("#")]
    assert names and "torch" not in names and "numpy" not in names


def test_only_the_pure_part_of_the_scoring_library_enters_slicers_process():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import module_host as m\n"
        "m.Host().close()\n"
        "loaded = {name for name in sys.modules if name.partition('.')[0] == 'brgsa'}\n"
        "heavy = {'torch', 'transformers', 'monai', 'nibabel', 'SimpleITK', 'brgsa_training'} & set(sys.modules)\n"
        "print(sorted(loaded), sorted(heavy))\n"
    )
    command = [sys.executable, "-c", code, str(REPOSITORY / "Testing" / "standins" / "panel")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_WAIT)
    allowed = ["abnormalities", "abnormality_files", "errors", "files", "text", "worker", "worker.protocol"]
    assert done.stdout.strip() == f"{['brgsa', *(f'brgsa.{name}' for name in allowed)]} []", done.stderr
