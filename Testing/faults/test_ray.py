"""Work that Ray spreads is killed and goes on; what Ray started ends with the command."""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from folder_contents import contents
from process_table import descendants, marked, new_mark, title
from waiting import wait

pytest.importorskip("ray", reason="Ray is not installed: pip install 'brgsa[cluster]'")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc"),
]
COMMANDS = {
    "score-on-ray": "score-on-ray {material}/scans --device cpu --abnormalities {material}/list.txt",
    "preprocess --ray": "preprocess folder {material}/scans --plan {material}/plan.json --ray",
}
FOLDERS, KILLS = 2, 3  # kills of one part in each folder
CLUSTER = """
import sys
import ray
ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


class Cluster:
    """The processes of a Ray cluster, which are those that one process has started."""

    def __init__(self, process: subprocess.Popen, mark: Mapping[str, str]):
        self.process, self.mark = process, mark
        self.found: set[int] = set()

    def at_work(self) -> int | None:
        """A worker that has a task of a command in hand."""
        self.found |= descendants(self.process.pid)
        return next((pid for pid in sorted(self.found) if "Map" in title(pid)), None)

    def wait_until_gone(self) -> None:
        """Ray writes titles over the variables of some of its processes: they are known by their numbers, too."""
        wait(lambda: not marked(self.mark) and not any("ray" in title(pid) for pid in self.found))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster and the variables that lead a command to it."""
    mark, word = new_mark(), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = os.environ | mark | word | {"BRGSA_CACHE": str(tmp_path_factory.mktemp("cache"))}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    cluster = Cluster(process, mark)
    yield cluster, word | {"RAY_ADDRESS": process.stdout.readline().strip()}
    cluster.at_work()
    process.communicate()
    cluster.wait_until_gone()


@pytest.fixture(scope="module")
def start(material) -> Callable[..., subprocess.Popen]:
    def start(name: str, out: Path, variables: Mapping[str, str]) -> subprocess.Popen:
        out.parent.mkdir(exist_ok=True)
        arguments = COMMANDS[name].format(material=material).split()
        command = [sys.executable, "-m", "brgsa_training.cli", *arguments, "--out", str(out)]
        with out.with_name("log.txt").open("a") as log:
            return subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)

    return start


@pytest.fixture(scope="module")
def uncut_on_ray(start, cluster, tmp_path_factory):
    """What a command writes that nobody kills, by its name."""
    results = {}
    for name in COMMANDS:
        out = tmp_path_factory.mktemp("uncut") / "out"
        results[name] = finish(start(name, out, cluster[1]), out)
    return results


def finish(process: subprocess.Popen, out: Path) -> dict[str, str]:
    """Let a command end by itself and say what it left."""
    assert process.wait() == 0, out.with_name("log.txt").read_text()[-2000:]
    return contents(out)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_ray_that_is_killed_goes_on(name, start, cluster, uncut_on_ray, tmp_path, attacks):
    (ray, address), dice = cluster, random.Random(name)
    for number in range(FOLDERS):
        out, kills = tmp_path / str(number) / "out", 0
        while kills < KILLS:
            process = start(name, out, address)
            wait(lambda process=process: ray.at_work() or process.poll() is not None)
            time.sleep(dice.uniform(0, 2))
            process.kill()
            if process.wait() != -signal.SIGKILL:
                break  # all is done
            kills += 1
            attacks(f"{name}: killed, the command alone while its workers work")
            wait(lambda: not ray.at_work())
        assert finish(start(name, out, address), out) == uncut_on_ray[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_ray_whose_workers_are_killed_ends_well(name, start, cluster, uncut_on_ray, tmp_path, attacks):
    (ray, address), dice = cluster, random.Random(name)
    for number in range(FOLDERS):
        out, killed = tmp_path / str(number) / "out", set()
        process = start(name, out, address)
        while len(killed) < KILLS and process.poll() is None:
            worker = ray.at_work()
            if worker and worker not in killed:
                time.sleep(dice.uniform(0, 1))
                if "Map" in title(worker):
                    os.kill(worker, signal.SIGKILL)
                    killed.add(worker)
                    attacks(f"{name}: killed, a worker at work")
        assert killed and finish(process, out) == uncut_on_ray[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_cluster_that_a_command_started_ends_with_it(name, start, uncut_on_ray, tmp_path, attacks):
    """Two agents of Ray itself look for their server for another minute."""
    out, mark = tmp_path / "0" / "out", new_mark()
    process = start(name, out, mark | {"BRGSA_CACHE": str(tmp_path / "cache")})
    ray = Cluster(process, mark)
    wait(lambda: ray.at_work() or process.poll() is not None)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    attacks(f"{name}: killed, the command that started the cluster")
    ray.wait_until_gone()
    process = start(name, out, mark | {"BRGSA_CACHE": str(tmp_path / "cache")})
    assert finish(process, out) == uncut_on_ray[name]
    wait(lambda: not marked(mark))
