"""Commands that are killed, as forked children of this process, which has paid for the imports already.

The child leads a session of its own, works in a folder of its own, and has everything that it starts in its mark (see
`process_table`). It dies before its n-th change of a file (`before`), or when it is killed from outside.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from process_table import marked
from waiting import wait

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open", "sqlite3.connect"}


class Child:
    """A command under way.

    Args:
        main: takes the arguments and returns the exit code.
        arguments: of the command.
        folder: where it works; what it prints is added to FOLDER/../log.txt.
        mark: variables for its environment.
        prepare: called in the child first.
    """

    def __init__(
        self,
        main: Callable[[list[str]], int | None],
        arguments: Sequence[str],
        folder: Path,
        mark: Mapping[str, str],
        prepare: Callable[[], None] = lambda: None,
    ):
        self.mark = dict(mark)
        self.pid = os.fork()
        if self.pid == 0:
            _run(main, list(arguments), folder, self.mark, prepare)

    def kill(self, tree: bool) -> bool:
        """Kill the process, or its whole session; return whether that is what ended it."""
        if tree:
            with contextlib.suppress(ProcessLookupError):  # it has no session of its own yet
                os.killpg(self.pid, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """The exit code, or minus the number of the signal that ended it; nothing that it started is left then."""
        code = self.code()
        wait(lambda: not marked(self.mark))
        return code

    def code(self) -> int:
        """The same, while another child with its mark may be at work."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait_until_stopped(self) -> None:
        """Wait for its SIGSTOP."""
        status = os.waitpid(self.pid, os.WUNTRACED)[1]
        assert os.WIFSTOPPED(status), f"it ended with {os.waitstatus_to_exitcode(status)}"

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def before_change(number: int, folder: Path, sent: int = signal.SIGKILL) -> Callable[[], None]:
    """For `prepare`: the process gets a signal before its `number`-th change of a file below a folder."""

    def change(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), sent)

    return _at_changes(folder, change)


def count_changes(folder: Path, result: Path) -> Callable[[], None]:
    """For `prepare`: the number of changes of files below a folder is kept in another file."""
    return _at_changes(folder, lambda count: result.write_text(str(count)))


def _at_changes(folder: Path, change: Callable[[int], object]) -> Callable[[], None]:
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in CHANGES and _changes(event, arguments, str(folder)):
            seen += 1
            change(seen)

    return lambda: sys.addaudithook(hook)


def _changes(event: str, arguments: tuple, folder: str) -> bool:
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    return str(Path(os.fsdecode(path)).absolute()).startswith(folder)


def _run(main, arguments: list[str], folder: Path, mark: dict[str, str], prepare: Callable[[], None]) -> None:
    code = 70
    try:
        os.setsid()
        with (folder.parent / "log.txt").open("ab") as log, Path(os.devnull).open("rb") as nothing:
            for target, source in ((0, nothing), (1, log), (2, log)):
                os.dup2(source.fileno(), target)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        os.chdir(folder)
        os.environ.update(mark)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare()
        code = main(arguments) or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
