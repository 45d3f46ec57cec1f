"""Abnormalities, their lists, presets and files."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import brgsa
from brgsa.abnormalities import Abnormality, AbnormalityList, describe, describe_presets
from brgsa.errors import BrgSAError, InputError, UsageError
from brgsa.text import clean

DATA = Path(brgsa.__file__).parent / "data" / "abnormalities"
COUNTS = {
    "ct-rate-18": 18,
    "ct-rate-lt-15": 15,
    "gpt4o-88": 88,
    "inspect-pe": 1,
    "rad-chestct-16": 17,
    "rad-chestct-56": 56,
    "rexgroundingct-18": 18,
}
BENCHMARKS = {
    "ct-rate-18": ("ct-rate-18.json", "labels", ()),
    "ct-rate-lt-15": ("ct-rate-lt-15.json", "labels", ()),
    "gpt4o-88": ("gpt4o-88-abnormalities.json", "labels", ()),
    "inspect-pe": ("inspect-pe.json", "labels", ()),
    "rad-chestct-16": ("rad-chestct-16.json", "prompted_labels", ("Mosaic attenuation pattern",)),
    "rad-chestct-56": ("rad-chestct-rest.json", "prompted_labels", "removed_for_56"),
    "rexgroundingct-18": ("rexgroundingct.json", "labels", ()),
}
SHARED = Path(__file__).parents[3] / "shared"
presets = pytest.mark.parametrize("preset", sorted(COUNTS))


def shared_folder(*parts):
    folder = Path(os.environ.get("BRGSA_SHARED", SHARED)).joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"{folder} is not there (set BRGSA_SHARED)")
    return folder


@pytest.fixture(scope="session")
def schema():
    content = json.loads((DATA / "abnormality-list.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


# Presets


def test_the_presets_are_the_benchmarks_of_the_method_with_their_counts():
    assert {row["preset"]: row["abnormalities"] for row in describe_presets()} == COUNTS
    assert list(AbnormalityList.presets()) == sorted(COUNTS)
    assert all(AbnormalityList.presets().values())


@presets
def test_a_preset_has_the_labels_and_prompts_of_its_benchmark_in_order(preset):
    file, key, removed = BENCHMARKS[preset]
    benchmark = json.loads((shared_folder("reference", "benchmarks") / file).read_text(encoding="utf-8"))
    removed = benchmark[removed] if isinstance(removed, str) else removed
    expected = [pair for pair in zip(benchmark[key], benchmark["prompts"], strict=True) if pair[0] not in removed]
    ours = AbnormalityList.preset(preset)
    assert [(each.name, *each.prompts) for each in ours] == expected
    if "negative_prompts" in benchmark:
        negative = dict(zip(benchmark[key], benchmark["negative_prompts"], strict=True))
        assert [each.negative_prompts for each in ours] == [(negative[each.name],) for each in ours]


def test_some_labels_and_prompts_stand_where_the_released_code_has_them():
    ct_rate = AbnormalityList.preset("ct-rate-18")
    assert ct_rate[0].name == "Medical material"
    assert ct_rate[17].prompts == ("There is Interlobular septal thickening",)
    assert ct_rate[2].negative_prompts == ("There is no Cardiomegaly",)
    assert AbnormalityList.preset("inspect-pe")[0].prompts == ("There is lung embolism",)
    assert AbnormalityList.preset("ct-rate-lt-15").names[:3] == ("Pneumonia", "Pneumothorax", "Empyema")
    assert AbnormalityList.preset("rad-chestct-56").names[3] == "Tree-in-bud pattern"
    assert AbnormalityList.preset("rexgroundingct-18").names == ct_rate.names


def test_rad_chestct_16_scores_both_calcifications_that_the_benchmark_merges():
    rad = AbnormalityList.preset("rad-chestct-16")
    assert {"Arterial wall calcification", "Coronary artery wall calcification"} <= set(rad.names)
    assert "Mosaic attenuation pattern" not in rad.names
    assert "larger" in rad.description


@presets
def test_a_preset_follows_the_schema_and_is_named_like_its_file(preset, schema):
    content = json.loads((DATA / f"{preset}.json").read_text(encoding="utf-8"))
    schema.validate(content)
    assert content["name"] == preset
    assert content["source"]


@presets
def test_a_preset_carries_exactly_the_codes_that_were_verified(preset):
    verified = {}
    with (shared_folder("data", "vocab") / "ct_labels_codes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            identifiers = {"oifm": row["oifm_id"]}
            if row["radlex_verification"] in ("A", "B") and row["radlex_match"] != "none":
                identifiers["radlex"] = row["radlex_id"]
            if row["snomed_verification"] in ("A", "B"):
                identifiers["snomed"] = row["snomed_ct"]
            verified[row["label"].lower()] = {system: code for system, code in identifiers.items() if code}
    for each in AbnormalityList.preset(preset):
        ours = {system: code if isinstance(code, str) else code["id"] for system, code in each.codes.items()}
        assert ours == verified.get(each.name.lower(), {}), each.name


def test_doubtful_codes_are_left_out():
    codes = {each.name: each.codes for each in AbnormalityList.preset("gpt4o-88")}
    assert codes["Pericardial effusion"] == {
        "radlex": {"id": "RID38588", "label": "pericardial effusion", "match": "exact"},
        "snomed": {"id": "373945007", "label": "Pericardial effusion (disorder)"},
        "oifm": "OIFM_GMTS_003706",
    }
    assert set(codes["Arterial wall calcification"]) == {"radlex", "oifm"}
    assert set(codes["Cardiomegaly"]) == {"snomed", "oifm"}
    assert "radlex" not in codes["Pulmonary fibrosis"]
    assert codes["Mosaic attenuation pattern"] == {}


def test_an_unknown_preset_is_answered_with_the_nearest_and_all():
    with pytest.raises(
        UsageError, match=r'no preset called "ct-rate-81" \(did you mean "ct-rate-18"\?\). Presets: ct-rate-18, '
    ):
        AbnormalityList.preset("ct-rate-81")


def test_describing_a_list_shows_what_the_model_reads():
    rows = {row["name"]: row for row in describe(AbnormalityList.preset("rad-chestct-56"))}
    assert rows["Tree-in-bud pattern"]["model_reads"] == "there is tree in bud pattern"
    row = describe(AbnormalityList.preset("ct-rate-18"))[3]
    assert row["codes"] == "RadLex RID38588 (exact), SNOMED CT 373945007, OIFM_GMTS_003706"
    assert row["threshold"] is None


def test_lists_need_only_the_standard_library():
    program = (
        "import sys; from brgsa.abnormalities import describe_presets; describe_presets(); "
        "print([m for m in ('numpy', 'tokenizers', 'torch', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Abnormalities


def test_prompts_default_to_the_released_phrase():
    each = Abnormality("  Lung \n nodule ")
    assert each.name == "Lung nodule"
    assert each.prompts == ("There is Lung nodule",)
    assert each.negative_prompts == ("There is no Lung nodule",)
    assert each == Abnormality("Lung nodule", prompts=["There is Lung nodule"])
    assert len({each, Abnormality("Lung nodule")}) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "X", "prompts": ["Cardiomegaly"]},
            'prompt "Cardiomegaly" of "X" has one word, which the released text cleaning erases; '
            'write a phrase such as "There is Cardiomegaly"',
        ),
        ({"name": "X", "negative_prompts": ["normal."]}, 'negative prompt "normal." of "X" has one word, which'),
        ({"name": "X", "prompts": ["Cardiomegaly. Effusion."]}, 'of "X" reaches the model as "": the released text'),
        (
            {"name": "肺炎"},
            'prompt "There is 肺炎" of "肺炎" reaches the model as "there is": the released text cleaning',
        ),
        ({"name": "..."}, 'reaches the model as "there is": the released text'),
        ({"name": ""}, "the name is empty"),
        ({"name": " \n"}, "the name is empty"),
        ({"name": 5}, "the name is 5, not text"),
        ({"name": None}, "the name is None, not text"),
        ({"name": "red\x1b[31m mass"}, "the name holds a control character: 'red\\x1b[31m mass'"),
        ({"name": "lone \ud800 surrogate"}, "the name holds a control character"),
        (
            {"name": "There is Pneumonia"},
            'the name "There is Pneumonia" is a prompt. Write only what is there: "Pneumonia"',
        ),
        ({"name": "X", "prompts": "There is X"}, 'the prompts of "X" are not a list of texts'),
        ({"name": "X", "prompts": ["There is a mass", ""]}, 'a prompt of "X" is empty'),
        ({"name": "X", "prompts": ["There is a mass", 3]}, 'a prompt of "X" is 3, not text'),
        ({"name": "X", "group": 3}, 'the group of "X" is 3, not text'),
        ({"name": "X", "threshold": float("nan")}, 'the threshold of "X" is nan, not a score between -2 and 2'),
        ({"name": "X", "threshold": float("inf")}, 'the threshold of "X" is inf, not a score'),
        ({"name": "X", "threshold": True}, 'the threshold of "X" is True, not a score'),
        ({"name": "X", "threshold": "0.3"}, "the threshold of \"X\" is '0.3', not a score"),
        ({"name": "X", "threshold": 10**5000}, 'the threshold of "X" is a huge number, not a score'),
        ({"name": "X", "codes": ["RID1"]}, 'the codes of "X" are not an object of code systems'),
        (
            {"name": "X", "codes": {"icd": "J18"}},
            'the icd code of "X" is of an unknown system. Systems: radlex, snomed, oifm.',
        ),
        ({"name": "X", "codes": {"radlex": "RID5350"}}, 'the radlex code of "X" needs an "id"'),
        (
            {"name": "X", "codes": {"radlex": {"id": "5350"}}},
            "the radlex code of \"X\" is '5350', which is none; one looks like RID5350",
        ),
        ({"name": "X", "codes": {"snomed": {"id": "2.3E+08"}}}, "the snomed code of \"X\" is '2.3E+08', which is none"),
        ({"name": "X", "codes": {"snomed": {"id": 233604007}}}, 'the snomed code of "X" is 233604007, which is none'),
        ({"name": "X", "codes": {"radlex": {"label": "y"}}}, 'the radlex code of "X" is None, which is none'),
        (
            {"name": "X", "codes": {"radlex": {"id": "RID1", "match": "near"}}},
            "the match of the radlex code of \"X\" is 'near', not one of exact, broader, narrower",
        ),
    ],
)
def test_an_abnormality_that_makes_no_sense_is_refused_in_one_line(values, message):
    with pytest.raises(UsageError) as error:
        Abnormality(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_refuses_names_that_differ_only_in_case_and_spacing():
    with pytest.raises(UsageError, match='abnormality 3 repeats the name "lung nodule" of abnormality 1'):
        AbnormalityList.from_names(["Lung nodule", "Pneumonia", "lung   NODULE".replace("NODULE", "nodule")])
    with pytest.raises(UsageError, match="the list has no abnormalities"):
        AbnormalityList("empty", ())


def test_a_list_is_a_sequence():
    abnormalities = AbnormalityList.from_names(["Pneumonia", "Emphysema"])
    assert len(abnormalities) == 2
    assert abnormalities[-1].name == "Emphysema"
    assert abnormalities[0] in abnormalities
    assert abnormalities.names == ("Pneumonia", "Emphysema")


# What --abnormalities takes


def test_parse_takes_a_preset_a_file_or_names(tmp_path):
    assert AbnormalityList.parse("ct-rate-18") == AbnormalityList.preset("ct-rate-18")
    path = tmp_path / "meine Liste; neu é.txt"
    path.write_text("Pneumonia\n", encoding="utf-8")
    assert AbnormalityList.parse(str(path)).names == ("Pneumonia",)
    assert AbnormalityList.parse(path).names == ("Pneumonia",)
    assert AbnormalityList.parse("Pneumonia; Lung nodule").names == ("Pneumonia", "Lung nodule")
    assert AbnormalityList.parse("Pneumonia;").names == ("Pneumonia",)
    many = "; ".join(f"Finding number {n}" for n in range(2000))
    assert len(AbnormalityList.parse(many)) == 2000


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("ct-rate-19", UsageError, 'no abnormality preset or file called "ct-rate-19" (did you mean "ct-rate-18"?)'),
        ("Pneumonia", UsageError, 'Names need a ";", even one: "Mass;".'),
        ("", UsageError, 'no abnormality preset or file called ""'),
        (";", UsageError, 'name 1 of ";" is empty'),
        ("a mass;; a cyst", UsageError, 'name 2 of "a mass;; a cyst" is empty. Write it or remove its semicolon.'),
        ("Mass; mass", UsageError, 'abnormality 2 repeats the name "mass" of abnormality 1'),
        ("nowhere/list.csv", InputError, "nowhere/list.csv: no such file"),
        ("x" * 5000, UsageError, "no abnormality preset or file called"),
        ("a\0b", UsageError, "no abnormality preset or file called"),
    ],
)
def test_parse_says_in_one_line_what_it_could_not_understand(text, kind, message):
    with pytest.raises(kind) as error:
        AbnormalityList.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# Files


def normal_text(**kwargs):
    letters = st.characters(blacklist_categories=("Cs", "Cc"))
    return st.text(letters, min_size=1, max_size=30, **kwargs).map(lambda text: " ".join(text.split()))


# Two words at the end, so that a full stop in the odd part cannot leave a name of one word, which is refused.
names = normal_text().map(lambda text: f"{text} lung mass")
sentences = normal_text().map(lambda text: f"A chest with {text}")
labels = normal_text().filter(bool)
codes = st.fixed_dictionaries(
    {},
    optional={
        "radlex": st.fixed_dictionaries(
            {"id": st.from_regex(r"RID[0-9]{1,6}", fullmatch=True)},
            optional={"label": labels, "match": st.sampled_from(["exact", "broader", "narrower"])},
        ),
        "snomed": st.fixed_dictionaries(
            {"id": st.from_regex(r"[0-9]{6,18}", fullmatch=True)}, optional={"label": labels}
        ),
        "oifm": st.just("OIFM_GMTS_003706"),
    },
)
abnormality_lists = st.lists(
    st.builds(
        Abnormality,
        name=names,
        prompts=st.lists(sentences, max_size=3),
        negative_prompts=st.lists(sentences, max_size=2),
        group=st.none() | labels,
        codes=codes,
        threshold=st.none() | st.floats(-2, 2),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each.name.casefold(),
).map(lambda items: AbnormalityList("my list", tuple(items), "a description", "a source"))
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@quick
@given(abnormality_lists)
def test_json_gives_back_every_field_and_follows_the_schema(tmp_path, schema, abnormalities):
    assert abnormalities.write(tmp_path / "list.json") == ()
    assert AbnormalityList.read(tmp_path / "list.json") == abnormalities
    schema.validate(json.loads((tmp_path / "list.json").read_text(encoding="utf-8")))


@quick
@given(abnormality_lists)
def test_csv_gives_back_every_abnormality(tmp_path, abnormalities):
    assert abnormalities.write(tmp_path / "list.csv") == ("list name", "description", "source")
    assert AbnormalityList.read(tmp_path / "list.csv").abnormalities == abnormalities.abnormalities


@quick
@given(abnormality_lists)
def test_plain_text_gives_back_names_and_prompts_and_says_what_it_lost(tmp_path, abnormalities):
    assume(not any(name.startswith("#") for name in abnormalities.names))
    lost = abnormalities.write(tmp_path / "list.txt")
    again = AbnormalityList.read(tmp_path / "list.txt")
    assert [(each.name, each.prompts) for each in again] == [(each.name, each.prompts) for each in abnormalities]
    assert {"name", "prompts"}.isdisjoint(lost)
    for key in ("codes", "group", "threshold"):
        assert (key in lost) == any(getattr(each, key) not in (None, {}) for each in abnormalities)


@presets
@pytest.mark.parametrize("suffix", [".json", ".csv", ".txt", ".JSON"])
def test_every_preset_survives_being_written_and_read(tmp_path, preset, suffix):
    original = AbnormalityList.preset(preset)
    lost = original.write(tmp_path / f"{preset}{suffix}")
    again = AbnormalityList.read(tmp_path / f"{preset}{suffix}")
    assert again.name == preset
    assert again.names == original.names
    assert [each.prompts for each in again] == [each.prompts for each in original]
    if suffix != ".txt":
        assert again.abnormalities == original.abnormalities
    assert (again == original) == (not lost)


def test_a_csv_of_a_spreadsheet_is_read_with_semicolons_decimal_commas_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(
        b"\xef\xbb\xbfName;Prompts;Threshold;\r\n\r\n"
        b'Pneumonia;"There is a pneumonia\nLungs are infected";0,35;\r\n'
        b"Mass, left;;;\r\n"
    )
    pneumonia, mass = AbnormalityList.read(path)
    assert pneumonia.prompts == ("There is a pneumonia", "Lungs are infected")
    assert pneumonia.threshold == 0.35
    assert mass == Abnormality("Mass, left")


def test_a_csv_with_tabs_and_only_names_is_read(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("group\tname\nLung\tPneumonia\n\tMass\n")
    assert [(each.name, each.group) for each in AbnormalityList.read(path)] == [("Pneumonia", "Lung"), ("Mass", None)]


def test_plain_text_may_have_comments_blank_lines_and_prompts(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf# mine\r\nPneumonia\r\n\r\n  Pulmonary embolism \tThere is lung embolism\t\r\n")
    assert [(each.name, each.prompts) for each in AbnormalityList.read(path)] == [
        ("Pneumonia", ("There is Pneumonia",)),
        ("Pulmonary embolism", ("There is lung embolism",)),
    ]


HEAD = '{"version": 1, "name": "x", "abnormalities": '
BAD_FILES = {
    "empty.txt": (b"", " is empty. Write at least one abnormality."),
    "blank.csv": (b"\xef\xbb\xbf \n", " is empty."),
    "comments.txt": (b"# nothing\n", ": the list has no abnormalities. Add at least one."),
    "header.csv": (b"name,group\n", ": the list has no abnormalities."),
    "latin.txt": (
        "Pneumonia\nÉpanchement".encode("latin-1"),
        ", row 2: not UTF-8 text. Save the file with the encoding UTF-8.",
    ),
    "utf16.csv": ("name\nPneumonia".encode("utf-16"), ", row 1: not UTF-8 text."),
    "repeat.csv": (b"name\nMass\nCyst\nMASS \n", ': row 4 repeats the name "MASS" of row 2. Rename or delete one.'),
    "repeat.txt": (b"Mass\n\nmass\n", ': row 3 repeats the name "mass" of row 1.'),
    "noname.csv": (
        b"label,prompts\nMass,\n",
        ': no column "name". The first row must name the columns: name, prompts,',
    ),
    "typo.csv": (b"name,promts\nMass,\n", ', row 1: unknown column "promts" (did you mean "prompts"?). Known: name,'),
    "twice.csv": (b"name,Name\nMass,\n", ', row 1: the column "name" occurs twice.'),
    "nocell.csv": (b"name,group\nMass,Lung\n,Lung\n", ", row 3: the name is empty"),
    "extra.csv": (
        b"name\nMass, left\n",
        ', row 2: " left" is in no named column. Put quotes around cells that hold commas.',
    ),
    "quote.csv": (b'name\nMass\n"Cyst\n', "not CSV (unexpected end of data). Check the quotes."),
    "one.csv": (b"name,prompts\nMass,Mass\n", ', row 2: prompt "Mass" of "Mass" has one word, which the released'),
    "number.csv": (b"name,threshold\nMass,high\n", ', row 2: threshold "high" is not a number.'),
    "nan.csv": (b"name,threshold\nMass,nan\n", ', row 2: the threshold of "Mass" is nan, not a score'),
    "code.csv": (b"name,snomed_id\nMass,3.1E+08\n", ", row 2: the snomed code of \"Mass\" is '3.1E+08', which is none"),
    "noid.csv": (b"name,radlex_label\nMass,mass\n", ', row 2: the radlex code of "Mass" is None'),
    "nul.csv": (b"name\nMa\0ss\n", "row 2: "),
    "nul.txt": (b"Ma\0ss\n", ", row 1: the name holds a control character"),
    "cell.csv": (b"name\n" + b"x" * 200_000 + b"\n", "not CSV (field larger than field limit"),
    "huge.txt": (b"Mass\n" * 1_100_000, " has 5,500,000 bytes; an abnormality list has at most 5,000,000."),
    "broken.json": (b'{"version": 1,\n "name" "x"}', ", row 2, column 9: not JSON (Expecting ':' delimiter)."),
    "deep.json": (b"[" * 200_000, ": not JSON"),
    "digits.json": (b"1" * 6000, ": "),
    "list.json": (b"[]", ': the file must hold an object with "version", "name" and "abnormalities".'),
    "noversion.json": (b'{"name": "x"}', ': "version" is missing. Write "version": 1.'),
    "version.json": (b'{"version": 2, "name": "x"}', ": version 2 is unknown; this program reads version 1."),
    "bool.json": (b'{"version": true, "name": "x"}', ": version True is unknown"),
    "key.json": (
        b'{"version": 1, "abnormality": []}',
        ': unknown key "abnormality" (did you mean "abnormalities"?). Known: version,',
    ),
    "untitled.json": (b'{"version": 1, "abnormalities": []}', ': "name" is missing.'),
    "title.json": (
        b'{"version": 1, "name": 3, "abnormalities": [{"name": "Mass"}]}',
        ": the name of the list is 3, not text",
    ),
    "none.json": ((HEAD + "[]}").encode(), ": the list has no abnormalities."),
    "text.json": ((HEAD + '["Mass"]}').encode(), ', abnormality 1: must be an object with a "name"'),
    "object.json": ((HEAD + "{}}").encode(), ': "abnormalities" must be a list of objects with a "name".'),
    "inner.json": (
        (HEAD + '[{"name": "Mass"}, {"name": "Cyst", "prompt": "There is a cyst"}]}').encode(),
        ', abnormality 2: unknown key "prompt" (did you mean "prompts"?). Known: name, prompts,',
    ),
    "nan.json": (
        (HEAD + '[{"name": "Mass", "threshold": NaN}]}').encode(),
        ', abnormality 1: the threshold of "Mass" is nan',
    ),
    "array.json": ((HEAD + '[{"name": "Mass", "prompts": "There is"}]}').encode(), ", abnormality 1: the prompts of"),
    "excel.xlsx": (b"PK", ": an abnormality list ends in .json, .csv, .txt. Rename the file."),
}


@pytest.mark.parametrize("file", sorted(BAD_FILES))
def test_a_bad_file_is_named_with_its_row_in_one_line(tmp_path, file):
    content, message = BAD_FILES[file]
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises((InputError, UsageError)) as error:
        AbnormalityList.read(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert isinstance(error.value, UsageError) == (path.suffix == ".xlsx")


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.json: no such file"):
        AbnormalityList.read(tmp_path / "missing.json")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv is not a file"):
        AbnormalityList.read(tmp_path / "folder.csv")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.txt")
        with pytest.raises(InputError, match=r"pipe\.txt is not a file"):
            AbnormalityList.read(tmp_path / "pipe.txt")


@quick
@given(
    st.sampled_from([".json", ".csv", ".txt"]),
    st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")),
)
@example(".csv", b"a,\0\x0b\0")
def test_any_bytes_give_a_list_or_one_line(tmp_path, suffix, content):
    path = tmp_path / f"any{suffix}"
    path.write_bytes((b"name,threshold,snomed_id\n" if suffix == ".csv" else b"") + content)
    try:
        abnormalities = AbnormalityList.read(path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(clean(prompt) for each in abnormalities for prompt in each.prompts)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    abnormalities = AbnormalityList.from_names(["#1 mass"])
    with pytest.raises(UsageError, match='the name "#1 mass" would be a comment in plain text'):
        abnormalities.write(tmp_path / "list.txt")
    with pytest.raises(UsageError, match="an abnormality list ends in"):
        abnormalities.write(tmp_path / "list.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(BrgSAError, match="cannot write"):
        abnormalities.write(tmp_path / "file" / "list.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_abnormality_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Abnormality("Mass").name = "Cyst"
    renamed = dataclasses.replace(Abnormality("Mass", threshold=0.2), name="Cyst", prompts=(), negative_prompts=())
    assert (renamed.prompts, renamed.threshold) == (("There is Cyst",), 0.2)
