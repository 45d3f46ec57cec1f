"""A conversation with `brgsa worker` inside the process of the tests."""

import io
import json
import queue
import threading

from waiting import LONGEST_WAIT

from brgsa.worker.server import Worker


class Talk:
    """A worker in this process, with two queues as pipes."""

    def __init__(self, worker=Worker, ended=None):
        self._lines, self._answers = queue.Queue(), queue.Queue()
        answers = io.StringIO()
        answers.write = lambda line: self._answers.put(json.loads(line))
        self.exit_codes = []
        self.worker = worker(iter(self._lines.get, None), answers, end=ended or self.exit_codes.append)
        self.thread = threading.Thread(target=self.worker.run, daemon=True)
        self.thread.start()
        self.hello = self.next()

    def next(self):
        return self._answers.get(timeout=LONGEST_WAIT)

    def send(self, **request):
        self._lines.put(json.dumps(request).encode() + b"\n")

    def send_line(self, line):
        self._lines.put(line.encode() if isinstance(line, str) else line)

    def ask(self, **request):
        """The answer to a request, and the stages on the way."""
        self.send(**request)
        stages = []
        while (message := self.next())["event"] == "progress":
            assert message["id"] == request["id"] and 0 <= message["fraction"] <= 1
            stages.append(message["stage"])
        return message, stages

    def end(self):
        self._lines.put(None)
        self.thread.join(LONGEST_WAIT)


def abnormalities(*names):
    return [{"name": name} for name in names]
