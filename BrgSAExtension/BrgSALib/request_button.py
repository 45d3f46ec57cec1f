"""A button that starts a request of the worker and, while it is worked on, means Cancel."""

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from brgsa.worker.protocol import CANCELLED

from .session import Done, Failed, Progress, Stop


class RequestButton:
    """One button and the sentence beside it.

    Args:
        button: the widget.
        start: called on a click while nothing runs.
        say: shows a sentence: the stage with its fraction, and that it was cancelled.
    """

    def __init__(self, button: Any, start: Callable[[], None], say: Callable[[str], None]):
        self._button, self._start, self._say = button, start, say
        self._text = button.text
        self._stop: Stop | None = None
        self.running = False
        button.connect("clicked(bool)", lambda checked=False: self.cancel() if self.running else self._start())

    def enable(self, on: bool, tip: str) -> None:
        """Enable the button, and say in its tooltip what it does or what is missing. Cancel stays possible."""
        self._button.enabled = on or self.running
        self._button.toolTip = _("Stop this.") if self.running else tip

    def run(self, send: Callable[[Done, Failed, Progress], Stop], done: Done, failed: Failed) -> None:
        """Send a request; `failed` is not called when the user cancels.

        Args:
            send: takes the callbacks, sends, and returns what cancels the request.
        """
        if self.running:
            return
        self.running = True
        self._button.text = _("Cancel")
        self._say(_("Starting…"))

        def end() -> None:
            self.running, self._stop = False, None
            self._button.text = self._text

        def on_done(values: dict[str, Any]) -> None:
            end()
            done(values)

        def on_failed(code: str, message: str, more: dict[str, Any]) -> None:
            end()
            if code == CANCELLED:
                self._say(_("Cancelled."))
            else:
                failed(code, message, more)

        stop = send(on_done, on_failed, lambda fraction, stage: self._say(f"{stage} ({fraction:.0%})…"))
        if self.running:
            self._stop = stop

    def cancel(self) -> None:
        """Stop what is running."""
        if self._stop is not None:
            self._say(_("Cancelling…"))
            self._stop()
