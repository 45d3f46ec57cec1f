import json

import pytest

from brgsa.errors import InputError, UsageError
from brgsa_training.summarize.batchfile import export_batch, import_batch
from brgsa_training.summarize.ledger import Ledger
from brgsa_training.summarize.openai_client import Settings
from brgsa_training.summarize.prompt import Prompt
from brgsa_training.summarize.reports import Report

SETTINGS = Settings("https://api.openai.com/v1", "gpt-4o")
REPORTS = [Report(f"case_{number}", f"Report {number}. There is a nodule.") for number in range(6)]
GOOD = '{"abnormalities": [{"name": "Lung nodule", "status": "present", "sentence": 2, "location": ""}]}'


def _output(request: dict, content: str = GOOD, status: int = 200) -> dict:
    body = {"choices": [{"message": {"content": content}}], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}
    response = {"status_code": status, "body": body if status == 200 else {"error": {"message": "rate limit"}}}
    return {"id": "batch_req_1", "custom_id": request["custom_id"], "response": response, "error": None}


@pytest.fixture
def prompt(vocabulary) -> Prompt:
    return Prompt(vocabulary.names)


def test_requests_are_those_of_the_api_and_split_by_size(tmp_path, prompt):
    files = export_batch(tmp_path / "b.jsonl", [*REPORTS, REPORTS[0]], prompt, SETTINGS, most_bytes=25_000)
    assert [path.name for path in files][:2] == ["b.jsonl", "b-2.jsonl"]
    assert all(path.stat().st_size <= 25_000 for path in files)
    requests = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    assert [request["custom_id"] for request in requests] == [report.hash for report in REPORTS]
    assert {(request["method"], request["url"]) for request in requests} == {("POST", "/v1/chat/completions")}
    assert requests[0]["body"]["model"] == "gpt-4o"
    assert "Report 0." in requests[0]["body"]["messages"][-1]["content"]


@pytest.mark.parametrize("name", ["b.jsonl", "b-2.jsonl"])
def test_no_file_is_written_over_by_requests(tmp_path, prompt, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{name} exists"):
        export_batch(tmp_path / "b.jsonl", REPORTS, prompt, SETTINGS, most_bytes=25_000)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_answers_are_checked_and_kept_in_any_order(tmp_path, prompt):
    (path,) = export_batch(tmp_path / "b.jsonl", REPORTS, prompt, SETTINGS)
    requests = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [_output(request) for request in reversed(requests)]
    lines[1] = _output(requests[4], "no JSON")
    lines[2] = _output(requests[3], status=429)
    lines[3]["custom_id"] = "f" * 64
    output = tmp_path / "o.jsonl"
    output.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert import_batch(output, REPORTS, prompt, SETTINGS, ledger) == (3, 2, 1)
        job = SETTINGS.job(prompt)
        assert ledger.get(REPORTS[5].hash, job).tokens_in == 5
        assert "not valid JSON" in ledger.get(REPORTS[4].hash, job).error
        assert "rate limit" in ledger.get(REPORTS[3].hash, job).error
        assert ledger.get(REPORTS[2].hash, job) is None


def test_another_file_is_refused_with_its_line(tmp_path, prompt):
    path = tmp_path / "o.jsonl"
    path.write_text('{"custom_id": "a"}\nhello\n')
    with Ledger(tmp_path / "l.sqlite") as ledger, pytest.raises(InputError, match="line 2: not a line of a Batch API"):
        import_batch(path, REPORTS, prompt, SETTINGS, ledger)
