"""The commands as a newcomer types them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait

from brgsa_training.summarize.captions import read_captions
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.vocabulary import load_vocabulary

TEXTS = (
    "Trachea is open. There is a 5 mm nodule in the right lung. No pleural effusion was detected.",
    "Heart size increased. Consolidation is observed in the left lung.",
    "",
    "Normal examination of the chest.",
)


def _labels(path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["report"]: row for row in csv.DictReader(file)}


def test_help_and_the_rules_load_no_heavy_package():
    code = (
        "import sys; from brgsa_training import cli\n"
        "try: cli.main(['summarize', '--help'])\n"
        "except SystemExit: pass\n"
        "import brgsa_training.summarize.job\n"
        "print([name for name in ('torch', 'numpy', 'openai', 'sklearn', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_rules_write_all_files_of_the_folder(run, write_reports, tmp_path):
    out = tmp_path / "out"
    code, output, _ = run("summarize", write_reports(*TEXTS), "--out", out)
    assert code == 0
    assert "4 reports, 3 captions" in output
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("findings.jsonl", "labels.csv", "captions.json", "failures.csv", "run.json"),
    }
    labels = _labels(out / "labels.csv")
    assert (labels["train_1_a"]["Lung nodule"], labels["train_1_a"]["Pleural effusion"]) == ("1", "0")
    assert labels["train_1_a"]["Cardiomegaly"] == ""
    assert set(labels["train_3_a"].values()) == {"train_3_a", ""}
    captions = read_captions(out / "captions.json")
    assert captions["train"]["train_2_a"].sentences[-1] == "there is pneumonia"
    assert captions["train"]["train_2_a"].images == ("train_2_a_1.nii.gz",)


def test_a_finished_run_is_not_done_again_unless_something_changed(run, write_reports, tmp_path):
    reports, out = write_reports(*TEXTS), tmp_path / "out"
    run("summarize", reports, "--out", out)
    assert "nothing to do" in run("summarize", reports, "--out", out)[1]
    assert "nothing to do" not in run("summarize", reports, "--out", out, "--labels", "ct-rate-18")[1]
    (out / "labels.csv").write_text("damaged")
    assert "nothing to do" not in run("summarize", reports, "--out", out, "--labels", "ct-rate-18")[1]
    assert len(_labels(out / "labels.csv")["train_1_a"]) == 19


def test_summaries_of_other_reports_are_not_written_over(run, write_reports, tmp_path):
    out = tmp_path / "out"
    run("summarize", write_reports(*TEXTS), "--out", out)
    before = (out / "findings.jsonl").read_bytes()
    code, _, errors = run("summarize", write_reports(*TEXTS[:1]), "--out", out)
    assert code == 2 and "holds summaries of 3 reports that are not among those given" in errors
    assert (out / "findings.jsonl").read_bytes() == before and "nothing to do" in run(
        "summarize", write_reports(*TEXTS), "--out", out
    )[1]
    assert run("summarize", write_reports(*TEXTS, "No nodule."), "--out", out)[0] == 0


def test_the_model_backend_runs_end_to_end_and_a_rerun_asks_nothing(run, write_reports, tmp_path, llm):
    reports, out = write_reports(*TEXTS), tmp_path / "out"
    with llm.Server() as server:
        command = (
            "summarize",
            reports,
            "--backend",
            "openai",
            "--model",
            "m",
            "--base-url",
            server.base_url,
            "--out",
            out,
        )
        code, output, _ = run(*command)
        assert code == 0
        assert "3 answers" in output
        assert _labels(out / "labels.csv")["train_1_a"]["Lung nodule"] == "1"
        assert len(server.asked) == 3
        assert "nothing to do" in run(*command)[1]
        (out / "run.json").unlink()
        assert "0 answers" in run(*command)[1]
        assert len(server.asked) == 3
        run(*command, "--redo", "all")
        assert len(server.asked) == 6
    code, output, _ = run("summarize", "ledger", out / "ledger.sqlite", "--export", tmp_path / "l.jsonl")
    assert (code, output.startswith("3 answers in")) == (0, True)


def test_failed_reports_are_listed_and_can_be_done_again(run, write_reports, tmp_path, llm):
    reports, out = write_reports(*TEXTS), tmp_path / "out"
    bad = lambda request: llm.completion("no") if "Heart" in request.report else llm.sensible(request)  # noqa: E731
    command = ("summarize", reports, "--backend", "openai", "--model", "m", "--out", out, "--base-url")
    with llm.Server(bad) as server:
        code, _, errors = run(*command, server.base_url)
        assert code == 6
        assert "1 of 4 reports have no usable answer" in errors
        assert 'train_2_a,"two answers could not be used' in (out / "failures.csv").read_text()
        assert "train_2_a" not in _labels(out / "labels.csv")
        assert run(*command, server.base_url)[0] == 6
        assert len(server.asked) == 4
    with llm.Server() as server:
        assert run(*command, server.base_url, "--redo", "failed")[0] == 0
        assert len(server.asked) == 1


def test_names_outside_the_vocabulary_are_listed_with_counts(run, write_reports, tmp_path, llm):
    entries = [
        {"name": name, "status": "present", "sentence": 1, "location": ""} for name in ("Nodules", "Thymic remnant")
    ]
    answer = llm.completion(json.dumps({"abnormalities": entries}))
    out = tmp_path / "out"
    with llm.Server(lambda request: answer) as server:
        command = ("--backend", "openai", "--model", "m", "--base-url", server.base_url, "--out", out)
        run("summarize", write_reports(*TEXTS), *command)
    assert (out / "names-unmapped.csv").read_text() == "raw_name,count\nthymic remnant,3\n"
    assert (out / "names-merged.csv").read_text() == "raw_name,abnormality,count\nnodules,Lung nodule,3\n"


def test_a_finding_that_the_report_denies_is_dropped_and_counted(run, write_reports, tmp_path, llm):
    def eager(request):
        """A model that calls present whatever a report names."""
        entries = [
            {"name": name, "status": "present", "sentence": sentence, "location": ""}
            for name, sentence in (("Lung nodule", 2), ("Pleural effusion", 3))
        ]
        return llm.completion(json.dumps({"abnormalities": entries if "nodule" in request.report else []}))

    out = tmp_path / "out"
    with llm.Server(eager) as server:
        command = ("--backend", "openai", "--model", "m", "--base-url", server.base_url, "--out", out)
        code, output, _ = run("summarize", write_reports(*TEXTS), *command)
    assert code == 0
    assert "1 findings dropped that the report denies" in output
    sentences = read_captions(out / "captions.json")["train"]["train_1_a"].sentences
    assert "there is lung nodule" in sentences and "there is pleural effusion" not in sentences
    assert _labels(out / "labels.csv")["train_1_a"]["Pleural effusion"] == ""
    denied = "No pleural effusion was detected."
    assert (out / "contradicted.csv").read_text().splitlines()[1] == f"train_1_a,Pleural effusion,{denied},{denied}"
    record = json.loads((out / "run.json").read_text())
    assert record["contradicted"] == 1 and record["response_formats"] == {"json_schema": 3}


def test_the_run_record_says_how_the_answers_were_kept_to_the_schema(run, write_reports, tmp_path, llm):
    def plain(request):
        return llm.problem(500, "validation") if "response_format" in request.body else llm.sensible(request)

    out = tmp_path / "out"
    with llm.Server(plain) as server:
        command = ("--backend", "openai", "--model", "m", "--base-url", server.base_url, "--out", out)
        assert run("summarize", write_reports(*TEXTS), *command)[0] == 0
    assert json.loads((out / "run.json").read_text())["response_formats"] == {"text": 3}
    with llm.Server(lambda request: llm.completion("no") if request.report else llm.sensible(request)) as server:
        command = (*command[:5], server.base_url, "--out", tmp_path / "failed")
        assert run("summarize", write_reports(*TEXTS), *command)[0] == 6
    assert json.loads((tmp_path / "failed" / "run.json").read_text())["response_formats"] == {"json_schema": 3}


def test_a_cap_stops_cleanly_and_the_next_run_goes_on(run, write_reports, tmp_path, llm):
    reports = write_reports(*(f"Report {number}. There is a nodule." for number in range(10)))
    out = tmp_path / "out"
    command = ("summarize", reports, "--backend", "openai", "--model", "m", "--out", out, "--max-tokens", "100")
    with llm.Server() as server:
        command += ("--base-url", server.base_url, "--price", "100", "100")
        code, _, errors = run(*command, "--max-cost", "1")
        assert code == 1
        assert "stopped at --max-cost 1 with" in errors
        assert 0 < len(server.asked) < 10
        assert not (out / "labels.csv").exists()
        assert run(*command)[0] == 0
        assert len(server.asked) == 10


def test_a_dry_run_sends_nothing_and_prints_a_price_only_if_it_was_given(run, write_reports):
    command = ("summarize", write_reports(*TEXTS), "--backend", "openai", "--model", "gpt-4o", "--dry-run")
    code, output, _ = run(*command)
    assert code == 0
    assert "requests:       3" in output
    assert "price:          unknown (give --price IN OUT" in output and "$" not in output
    tokens = [int(line.split()[2].replace(",", "")) for line in output.splitlines() if line.startswith("tokens")]
    _, output, _ = run(*command, "--price", "1000", "2000")
    assert f"price:          ${(tokens[0] * 1000 + tokens[1] * 2000) / 1e6:.2f}\n" in output
    code, _, errors = run(*command, "--price", "-1", "1")
    assert code == 2 and "--price takes two amounts of 0 dollars or more" in errors


def test_a_cap_on_another_machine_needs_a_price(run, write_reports, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    command = ("summarize", write_reports(*TEXTS), "--backend", "openai", "--model", "m", "--out", tmp_path / "out")
    elsewhere = ("--base-url", "http://192.0.2.1/v1", "--i-have-deidentified-these-reports")
    code, _, errors = run(*command, *elsewhere, "--max-cost", "5")
    assert code == 2 and "--max-cost needs the price of the model" in errors


def test_batch_files_go_out_and_come_back(run, write_reports, tmp_path):
    reports = write_reports(*TEXTS)
    command = ("summarize", reports, "--backend", "openai", "--model", "gpt-4o", "--i-have-deidentified-these-reports")
    assert run(*command, "--batch-export", tmp_path / "b.jsonl")[0] == 0
    lines = []
    for request in map(json.loads, (tmp_path / "b.jsonl").read_text(encoding="utf-8").splitlines()):
        body = {"choices": [{"message": {"content": '{"abnormalities": []}'}}]}
        lines.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
    (tmp_path / "o.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, output, _ = run(*command, "--out", tmp_path / "out", "--batch-import", tmp_path / "o.jsonl")
    assert code == 0
    assert "3 answers, 0 that cannot be used" in output
    assert len(_labels(tmp_path / "out" / "labels.csv")) == 4


def test_another_machine_needs_the_users_word_or_the_configuration_key(run, write_reports, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    command = ("summarize", write_reports(*TEXTS), "--backend", "openai", "--model", "m", "--out", tmp_path / "out")
    remote = ("--base-url", "https://llm.example.org/v1")
    code, _, errors = run(*command, *remote)
    assert code == 2
    assert "would be sent to llm.example.org, another machine" in errors
    config = tmp_path / "config.json"
    config.write_text('{"i-have-deidentified-these-reports": true}')
    for permission in (("--i-have-deidentified-these-reports",), ("--config", config)):
        code, _, errors = run(*command, *remote, *permission)
        assert code == 4
        assert errors.endswith("brgsa-training: error: no API key: set the environment variable OPENAI_API_KEY.\n")


def test_a_key_in_the_configuration_is_refused(run, write_reports, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"api_key": "sk-secret"}')
    code, _, errors = run("summarize", write_reports(*TEXTS), "--out", tmp_path / "out", "--config", config)
    assert code == 2
    assert "OPENAI_API_KEY" in errors
    assert "sk-secret" not in errors


@pytest.mark.parametrize(
    "backend", [(), ("--backend", "openai", "--model", "m", "--base-url", "http://localhost:1/v1")]
)
def test_an_identifier_stops_the_run_before_anything_is_written(run, write_reports, tmp_path, backend):
    reports = write_reports(TEXTS[0], "MRN: 1234567. There is a nodule.")
    code, _, errors = run("summarize", reports, "--out", tmp_path / "out", *backend)
    assert code == 3
    assert "line 2 (train_2_a) seems to hold a record number, at character 1 of its text" in errors
    assert "1234567" not in errors and "nodule" not in errors
    assert not list((tmp_path / "out").glob("*.csv"))
    if not backend:
        assert run("summarize", reports, "--out", tmp_path / "out", "--allow-identifiers")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "x"), "unknown label set 'x'"),
        (("--drop-sentences", "2"), "--drop-sentences must be at least 0"),
        (("--backend", "openai"), "needs --model"),
        (("--dry-run",), "need --backend openai"),
        (("--vocabulary", "none.json"), "cannot read the vocabulary none.json"),
    ],
)
def test_options_that_make_no_sense_are_named_in_one_line(run, write_reports, tmp_path, arguments, message):
    code, _, errors = run("summarize", write_reports(*TEXTS), "--out", tmp_path / "out", *arguments)
    assert code in (2, 3)
    assert errors.startswith("brgsa-training: error: ")
    assert errors.count("\n") == 1
    assert message in errors


def test_a_reports_file_that_is_missing_is_named(run, tmp_path):
    code, _, errors = run("summarize", tmp_path / "none.csv", "--out", tmp_path / "out")
    assert code == 3
    assert errors.count("\n") == 1
    assert "cannot read" in errors


def test_the_correction_loop_from_review_to_agreement(run, write_reports, tmp_path):
    out = tmp_path / "out"
    run("summarize", write_reports(*TEXTS), "--out", out)
    assert run("summarize", "review", out, "--out", tmp_path / "review.html")[0] == 0
    assert run("summarize", "review", out, "--out", tmp_path / "review.csv", "--labels", "ct-rate-18")[0] == 0
    with (tmp_path / "review.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 18
    for row in rows:
        wrong = (row["report"], row["abnormality"]) == ("train_1_a", "Lung nodule")
        row["reader"] = "absent" if wrong else row["machine"]
    with (tmp_path / "c.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    fixed = tmp_path / "fixed"
    command = ("summarize", "apply-corrections", tmp_path / "c.csv", "--results", out, "--out")
    assert run(*command, out)[0] == 2
    code, output, _ = run(*command, fixed)
    assert code == 0
    assert "1 of 54 reviewed lines corrected" in output
    assert _labels(fixed / "labels.csv")["train_1_a"]["Lung nodule"] == "0"
    assert "there is lung nodule" not in read_captions(fixed / "captions.json")["train"]["train_1_a"].sentences
    assert (fixed / "agreement.csv").exists()
    code, output, _ = run("agreement", out / "labels.csv", fixed / "labels.csv", "--labels", "ct-rate-18")
    assert code == 0
    assert "Cardiomegaly" in output


def test_rules_model_and_reader_are_compared_on_one_sheet(run, write_reports, tmp_path, llm):
    reports = write_reports(*TEXTS)
    assert run("summarize", reports, "--out", tmp_path / "rules")[0] == 0
    with llm.Server() as server:  # it knows only nodules
        command = ("--backend", "openai", "--model", "m", "--base-url", server.base_url, "--out", tmp_path / "model")
        assert run("summarize", reports, *command)[0] == 0
    code, output, _ = run(
        *("summarize", "review", tmp_path / "rules", "--against", tmp_path / "model", "--labels", "ct-rate-18"),
        *("--out", tmp_path / "review.csv", "--sample", "1"),
    )
    assert code == 0 and "of 2 reports" in output
    with (tmp_path / "review.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["report"], first["abnormality"]) == ("train_2_a", "Cardiomegaly")
    tables = [tmp_path / name / "labels.csv" for name in ("rules", "model")]
    code, output, _ = run("agreement", *tables, tables[0], "--labels", "ct-rate-18", "--out", tmp_path / "sheet.csv")
    assert code == 0
    assert "A : B" in output and f"B: {tables[1]}" in output
    with (tmp_path / "sheet.csv").open(newline="") as file:
        rows = {(row["table"], row["abnormality"]): row for row in csv.DictReader(file)}
    assert rows[str(tables[1]), "Cardiomegaly"]["f1"] == "0.0"


def test_other_captions_are_made_from_finished_results(run, write_reports, tmp_path):
    out = tmp_path / "out"
    run("summarize", write_reports(*TEXTS), "--out", out)
    path = tmp_path / "summary.json"
    assert run("summarize", "captions", out, "--out", path, "--captions", "summary")[0] == 0
    assert read_captions(path)["train"]["train_1_a"].sentences == ("there is lung nodule",)


def test_kill_9_in_the_middle_costs_only_the_requests_in_flight(run, write_reports, tmp_path, llm):
    reports = write_reports(*(f"Report {number}. There is a nodule." for number in range(200)))
    out = tmp_path / "out"
    options = ["--backend", "openai", "--model", "m", "--concurrency", "8", "--out", str(out), "--base-url"]
    with llm.Server(latency=0.02) as server:
        options.append(server.base_url)
        command = [sys.executable, "-m", "brgsa_training.cli", "summarize", str(reports), *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait(lambda: len(server.asked) >= 60 or process.poll() is not None)
            assert process.poll() is None
            process.kill()
        assert not (out / "labels.csv").exists()
        asked = len(server.asked)
        code, output, _ = run("summarize", reports, *options)
        assert code == 0
        assert "200 reports" in output
        assert len(server.asked) <= 200 + 8
        assert len(server.asked) - asked >= 200 - asked
    assert len(_labels(out / "labels.csv")) == 200


def test_a_server_that_dies_in_the_middle_loses_nothing(run, write_reports, tmp_path, llm):
    reports = write_reports(*(f"Report {number}. There is a nodule." for number in range(30)))
    command = (
        "summarize",
        reports,
        "--backend",
        "openai",
        "--model",
        "m",
        "--out",
        tmp_path / "out",
        "--concurrency",
        "2",
    )
    refusing = lambda request: llm.problem(403, "forbidden") if request.number > 10 else llm.sensible(request)  # noqa: E731
    with llm.Server(refusing) as server:
        code, _, errors = run(*command, "--base-url", server.base_url)
    assert code == 4
    assert errors.splitlines()[-1].startswith("brgsa-training: error: the server answered 403: forbidden")
    with llm.Server() as server:
        assert run(*command, "--base-url", server.base_url)[0] == 0
    assert len(server.asked) == 20


def test_debug_shows_no_report_and_no_key(write_reports, tmp_path, llm):
    reports = write_reports(*TEXTS)
    with llm.Server() as server:
        command = [
            sys.executable,
            "-m",
            "brgsa_training.cli",
            "summarize",
            str(reports),
            "--debug",
            "--backend",
            "openai",
        ]
        command += ["--model", "m", "--base-url", server.base_url, "--out", str(tmp_path / "out")]
        environment = os.environ | {"OPENAI_API_KEY": "sk-verysecretkey", "OPENAI_LOG": "debug"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert len(server.asked) == 3
    assert "nodule" not in result.stderr + result.stdout
    assert "verysecret" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a JSON object"),
        ("{", "cannot read the configuration"),
        ('{"concurency": 3}', "there is no option 'concurency'"),
        ('{"concurrency": "3"}', "'concurrency' is a number"),
        ('{"dry-run": "yes"}', "'dry-run' is true or false"),
        ('{"backend": "gpt"}', "'backend' is one of rules, openai"),
    ],
)
def test_a_broken_configuration_is_named(run, write_reports, tmp_path, content, message):
    config = tmp_path / "config.json"
    config.write_text(content)
    code, _, errors = run("summarize", write_reports(*TEXTS), "--out", tmp_path / "out", "--config", config)
    assert code == 2
    assert errors.count("\n") == 1
    assert message in errors


def test_the_report_in_the_documentation_has_the_result_beside_it():
    page = (Path(__file__).resolve().parents[3] / "docs" / "summarization.md").read_text(encoding="utf-8")
    table = page.split("| sentence of the report | result of `--backend rules` |\n|---|---|\n")[1].split("\n\n")[0]
    backend = RulesBackend(load_vocabulary())
    for line in table.splitlines():
        sentence, result = (cell.strip() for cell in line.strip("|").split("|"))
        found = backend.findings(sentence)
        said = [f"{f.abnormality}: {f.status.value}" + (f" ({f.location})" if f.location else "") for f in found]
        assert "; ".join(said) == result


def test_several_files_and_a_choice_of_reports_make_tables_that_evaluate_reads_as_they_are(run, tmp_path):
    for name, split in (("train_reports.csv", "train"), ("validation_reports.csv", "valid")):
        rows = [
            f"{split}_{n}_a_1.nii.gz,A nodule is seen in the right lung. Emphysema cannot be excluded.,No effusion."
            for n in (1, 2)
        ]
        rows.append(f"{split}_3_a_1.nii.gz,The lungs are clear.,Emphysema.")
        (tmp_path / name).write_text("VolumeName,Findings_EN,Impressions_EN\n" + "\n".join(rows) + "\n", "utf-8")
    (tmp_path / "ids.txt").write_text("valid_1_a\nvalid_3_a_1.nii.gz\ntrain_9_a\n", encoding="utf-8")
    files = [tmp_path / name for name in ("train_reports.csv", "validation_reports.csv")]
    out = tmp_path / "out"
    code, _, err = run("summarize", *files, "--out", out, "--labels", "ct-rate-18", "--ids", tmp_path / "ids.txt")
    assert code == 0 and "--ids names 3, of which 2 reports were found" in err
    labels = _labels(out / "labels.csv")
    assert list(labels) == ["valid_1_a", "valid_3_a"]
    assert (labels["valid_1_a"]["Emphysema"], labels["valid_3_a"]["Emphysema"]) == ("-1", "1")

    names = [name for name in labels["valid_1_a"] if name != "report"]
    scores = [["case", *names], *[[f"valid_{n}_a_{k}", *["0.5"] * 18] for n in (1, 3) for k in (1, 2)]]
    (tmp_path / "scores.csv").write_text("\n".join(map(",".join, scores)) + "\n", encoding="utf-8")
    tables = ("--labels", out / "labels.csv", "--scores", tmp_path / "scores.csv")
    code, text, err = run(
        "evaluate", "--benchmark", "ct-rate-18", *tables, "--out", tmp_path / "measured", "--bootstraps", 5
    )
    assert code == 0, err
    assert "Evaluated: 4 cases" in text and " 2 studies" in text and "Uncertain labels (-1): count as negative" in text
    with (tmp_path / "measured" / "table.csv").open(encoding="utf-8") as file:
        rows = {row["abnormality"]: row for row in csv.DictReader(file)}
    assert (rows["Emphysema"]["cases"], rows["Emphysema"]["positives"]) == ("4", "2")
    assert (rows["Pericardial effusion"]["cases"], rows["Pericardial effusion"]["positives"]) == ("4", "0")


@pytest.mark.parametrize(("uncertain", "stated"), [("negative", False), ("positive", True), ("ignore", False)])
def test_a_doubt_is_stated_in_captions_only_where_it_counts_as_positive(
    run, write_reports, tmp_path, uncertain, stated
):
    reports = write_reports("Emphysema cannot be excluded.")
    assert run("summarize", reports, "--out", tmp_path / "out", "--uncertain", uncertain)[0] == 0
    caption = json.loads((tmp_path / "out" / "captions.json").read_text("utf-8"))["train"]["train_1_a"]
    assert ("there is emphysema" in caption["processed_report"]) == stated
    assert _labels(tmp_path / "out" / "labels.csv")["train_1_a"]["Emphysema"] == "-1"
