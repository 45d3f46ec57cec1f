"""Commands are killed at changes of files and at random moments, and go on to what an uncut run gives.

After every kill no process is left; at the end the results are those of an uncut run, no finished work was done again,
no part of a file is left, and files of the user's beside and among them are as they were.
"""

import random
import time
from pathlib import Path

import pytest
from attacked import COMMANDS, Round
from killing import before_change

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc"),
]


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.changes])
def test_a_command_that_is_killed_before_a_change_of_a_file_goes_on(name, uncut, material, tmp_path, attacks):
    expected, count, _ = uncut(name)
    for number in sorted(random.Random(name).sample(range(1, count + 1), min(count, COMMANDS[name].changes))):
        one = Round(COMMANDS[name], material, tmp_path / str(number))
        assert one.start(before_change(number, one.out)).wait() == -9
        attacks(f"{name}: killed, the process before a change of a file")
        one.after_kill()
        assert one.finish() == expected, f"killed before change {number} of {count}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_at_random_moments_goes_on(name, uncut, material, tmp_path, attacks):
    expected, _, seconds = uncut(name)
    dice, kills, number = random.Random(name), 0, 0
    while kills < COMMANDS[name].moments:
        number += 1
        one = Round(COMMANDS[name], material, tmp_path / str(number))
        for _ in range(dice.randint(1, 3)):
            child, tree = one.start(), dice.random() < 0.5
            time.sleep(dice.uniform(0, seconds))
            if child.kill(tree):
                kills += 1
                attacks(f"{name}: killed, {'the whole tree' if tree else 'the process alone'} at a random moment")
            one.after_kill()
        assert one.finish() == expected
