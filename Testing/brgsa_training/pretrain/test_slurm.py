"""The Slurm script starts, stops and requeues a run; `srun` and `scontrol` are stand-ins, the rest is real."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST_WAIT, wait

from brgsa_training.pretrain.checkpoint import load_checkpoint

SCRIPT = Path(__file__).parents[3] / "BrgSATraining" / "brgsa_training" / "scripts" / "pretrain.sbatch"
SRUN = '#!/bin/bash\nshift  # --kill-on-bad-exit\nexec "$@"\n'
SCONTROL = '#!/bin/bash\nif [ "$1" = show ]; then echo localhost; else echo "$@" >> "$SCONTROL_LOG"; fi\n'


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")
def test_processes_have_all_processors_and_nearly_two_minutes_to_save(tmp_path):
    """Slurm's signal comes 120 s before the end; torchrun by itself would wait for 30 s."""
    show = '#!/bin/bash\necho "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT $SRUN_CPUS_PER_TASK"\n'
    for name, text in (("srun", show), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    names = {
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "16",
    }
    environment = os.environ | names | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = subprocess.run(["bash", str(SCRIPT)], env=environment, capture_output=True, text=True, check=True)
    seconds, processors = map(int, job.stdout.split())
    assert 60 < seconds < 120 and processors == 16


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")
def test_a_job_whose_time_is_up_saves_and_is_requeued(small_run, tmp_path, free_port):
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    log = tmp_path / "scontrol.log"
    environment = os.environ | {
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SCONTROL_LOG": str(log),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_GPUS_ON_NODE": "2",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", str(SCRIPT), *small_run.options, "--training.epochs", "100000", "--training.save_every", "1"]
    job = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait(lambda: (small_run.out / "last.pt").exists() or job.poll() is not None)
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=LONGEST_WAIT)
    assert job.returncode == 0, errors
    assert log.read_text() == "requeue 7\n"
    assert "stopped at step" in errors
    assert load_checkpoint(small_run.out / "last.pt")["world"] == 2
