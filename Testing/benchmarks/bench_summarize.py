"""Measure summarization: rules per second, requests per second against a local server, reruns, memory.

    python Testing/benchmarks/bench_summarize.py [--reports 50000] [--requests 3000]

The server is Testing/standins/llm_server.py in its own process, 50 ms per answer. "bare client" is the openai client as
it comes (typed calls, httpx) with no other work, "bare aiohttp" the HTTP library that we put beneath it, and "client on
aiohttp" both together without typed calls: the ceilings of this machine in the same run.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("BRGSA_SHARED", HERE.parents[2] / "shared"))
LATENCY_S = 0.05
CONCURRENCY = 64


def real_texts() -> list[str]:
    """The shipped reports (110), or sentences of our own where they are missing."""
    folder = SHARED / "data" / "reports"
    texts = []
    for name in ("ctrate_manual_labels_50.jsonl", "ctrate_valid_60.jsonl"):
        if (folder / name).exists():
            for line in (folder / name).read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                texts.append(record.get("report_text") or f"{record['findings']}  {record['impression']}")
    return texts or ["There is a 5 mm nodule in the right lung. No pleural effusion was detected."]


def write_reports(path: Path, count: int) -> None:
    texts = real_texts()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = f"{texts[number % len(texts)]} Number {number} of a measurement."
            file.write(json.dumps({"id": f"case_{number}", "text": text, "images": [f"case_{number}.nii.gz"]}) + "\n")


@contextlib.contextmanager
def server() -> Iterator[int]:
    """The stand-in server in its own process; gives its port."""
    command = [sys.executable, str(HERE.parent / "standins" / "llm_server.py"), "0", str(LATENCY_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def rules() -> None:
    from brgsa_training.summarize.rules import RulesBackend
    from brgsa_training.summarize.vocabulary import load_vocabulary

    texts = real_texts()
    start = time.process_time()
    backend = RulesBackend(load_vocabulary())
    loaded = time.process_time() - start
    start, cpu = time.perf_counter(), time.process_time()
    for text in texts:
        backend.findings(text)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"rules: load            {loaded:8.3f} s of processor time")
    rates = f"{len(texts) / wall:8.0f} per second of wall time, {len(texts) / cpu:.0f} of processor time"
    print(f"rules: reports         {rates}")
    command = [sys.executable, "-X", "importtime", "-c", "import brgsa_training.summarize.job"]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    bare = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run(command[:1] + command[3:], check=True)
    print(f"rules: start-up        {time.perf_counter() - start - bare:8.3f} s beyond that of Python")


async def bare_clients(port: int, count: int) -> None:
    import aiohttp
    import httpx2
    import openai

    from brgsa_training.summarize.openai_client import Settings
    from brgsa_training.summarize.prompt import Prompt
    from brgsa_training.summarize.sentences import split_sentences
    from brgsa_training.summarize.vocabulary import load_vocabulary

    url = f"http://127.0.0.1:{port}/v1"
    prompt = Prompt(load_vocabulary().names)
    body = {
        "model": "m",
        "messages": prompt.messages(split_sentences(real_texts()[0])),
        **Settings(url, "m").parameters,
    }
    options = {"api_key": "none", "base_url": url, "max_retries": 0}
    async with (
        aiohttp.ClientSession() as session,
        openai.AsyncOpenAI(**options) as client,
        openai.AsyncOpenAI(**options, http_client=openai.DefaultAioHttpClient(trust_env=False)) as fast,
    ):

        async def typed() -> None:
            await client.chat.completions.create(**body)

        async def raw() -> None:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                await response.read()

        async def ours() -> None:
            await fast.post(f"{url}/chat/completions", cast_to=httpx2.Response, body=body)

        for name, call in (("bare client", typed), ("bare aiohttp", raw), ("client on aiohttp", ours)):
            todo = iter(range(count))

            async def work(call=call, todo=todo) -> None:
                for _ in todo:
                    await call()

            start, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            print(
                f"{name + ':':<22} {count / wall:8.0f} requests/s, {1000 * cpu / count:.2f} ms of processor time each"
            )


def backend(port: int, folder: Path, count: int) -> None:
    from brgsa_training.summarize.budget import Budget
    from brgsa_training.summarize.ledger import Ledger
    from brgsa_training.summarize.openai_backend import OpenAIBackend
    from brgsa_training.summarize.openai_client import Settings
    from brgsa_training.summarize.prompt import Prompt
    from brgsa_training.summarize.reports import read_reports
    from brgsa_training.summarize.vocabulary import load_vocabulary

    write_reports(folder / "few.jsonl", count)
    settings = Settings(f"http://127.0.0.1:{port}/v1", "m", concurrency=CONCURRENCY)
    with Ledger(folder / "few.sqlite") as ledger:
        asker = OpenAIBackend(settings, Prompt(load_vocabulary().names), ledger, Budget(None))
        start, cpu = time.perf_counter(), time.process_time()
        outcome = asker.run(read_reports(folder / "few.jsonl"))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert outcome.ok == count, outcome
    rate = f"{count / wall:8.0f} requests/s, {1000 * cpu / count:.2f} ms of processor time each"
    print(f"{'our backend:':<22} {rate} (reading, prompt, request, check, ledger)")
    print(
        f"{'server limit:':<22} {CONCURRENCY / LATENCY_S:8.0f} requests/s ({CONCURRENCY} at a time, {LATENCY_S} s each)"
    )


def long_run(port: int, folder: Path, count: int) -> None:
    """A whole job, its memory over time, and its rerun, through the command line in a process of its own."""
    write_reports(folder / "many.jsonl", count)
    command = [
        sys.executable,
        "-m",
        "brgsa_training.cli",
        "summarize",
        str(folder / "many.jsonl"),
        "--backend",
        "openai",
    ]
    command += ["--model", "m", "--base-url", f"http://127.0.0.1:{port}/v1", "--concurrency", str(CONCURRENCY)]
    command += ["--out", str(folder / "out")]
    start = time.perf_counter()
    peak: list[tuple[float, int]] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                peak.append(
                    (time.perf_counter() - start, int(next(x for x in lines if x.startswith("VmRSS")).split()[1]))
                )
            time.sleep(1)
    wall = time.perf_counter() - start
    print(f"{count} reports:        {wall:8.1f} s for asking and writing; exit code {process.returncode}")
    marks = [peak[int(share * (len(peak) - 1))] for share in (0.1, 0.25, 0.5, 0.75, 1.0)]
    print(
        "memory over time:      " + ", ".join(f"{1024 * kib / 1e6:.0f} MB at {second:.0f} s" for second, kib in marks)
    )
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"rerun:                 {time.perf_counter() - start:8.1f} s ({result.stdout.strip().splitlines()[-1]})")
    (folder / "out" / "labels.csv").unlink()
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"rewrite from ledger:   {time.perf_counter() - start:8.1f} s ({result.stdout.strip().splitlines()[0]})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=2000, help="of the long run (50000 for the table in the docs)")
    parser.add_argument("--requests", type=int, default=2000, help="of each throughput measurement")
    arguments = parser.parse_args()
    rules()
    with server() as port, tempfile.TemporaryDirectory() as folder:
        asyncio.run(bare_clients(port, arguments.requests))
        backend(port, Path(folder), arguments.requests)
        long_run(port, Path(folder), arguments.reports)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB")


if __name__ == "__main__":
    main()
