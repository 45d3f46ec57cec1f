"""A short run of the damaged scans; `make fuzz` reads 20,000."""

import sys
from pathlib import Path

from waiting import LONGEST_WAIT

sys.path.append(str(Path(__file__).parent))
from fuzz_readers import run
from scan_damage import make_scan


def test_damaged_scans_of_every_format_are_read_or_refused(capsys):
    wrong = run(seed=7, files=400, seconds=LONGEST_WAIT)
    assert wrong == 0, capsys.readouterr().out


def test_a_file_is_the_same_whenever_it_is_made(tmp_path):
    for number in range(1, 40):
        made = []
        for folder in (tmp_path / "one", tmp_path / "two"):
            folder.mkdir(exist_ok=True)
            make_scan(5, number, folder)
            made.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert made[0] == made[1]
