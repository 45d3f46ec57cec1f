import importlib.util
import subprocess
import sys

import pytest

from brgsa_training import cli


def test_help_lists_every_command_and_loads_no_stage():
    code = "import sys; sys.argv = ['brgsa-training', '--help']\nfrom brgsa_training import cli\ntry: cli.main()\n"
    code += "except SystemExit: pass\nprint(sorted(m for m in sys.modules if m.startswith('brgsa_training.')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in result.stdout for name in cli.COMMANDS)
    assert result.stdout.strip().splitlines()[-1] == "['brgsa_training.cli']"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_own_help(name, capsys):
    if importlib.util.find_spec(cli.COMMANDS[name].module.rpartition(".")[0]) is None:
        pytest.skip(f"{cli.COMMANDS[name].module} is not in this installation")
    with pytest.raises(SystemExit) as caught:
        cli.main([*name.split(), "--help"])
    assert caught.value.code == 0
    assert f"brgsa-training {name}" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["sumarize"])
    assert caught.value.code == 2
    assert "sumarize" in capsys.readouterr().err
