"""The process that runs environments: ``python -m mmturn.rollout.workers.serve``.

The first message says how environments are made, each further one is a question; a thread answers each. It ends, and
what its environments hold with it, when its input closes or its parent is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import IO, Any

from mmturn.rollout.workers.link import Message, Start
from mmturn.rollout.workers.service import Service
from mmturn.rollout.workers.wire import packed_message, read_message

_END_S = 12.0
"""Seconds that environments have to close."""
_LOOK_S = 1.0
_ENDING = threading.Event()
"""Set when it ends: nothing may break off what closes the environments."""


class _Answers:
    """Answers from several threads, one after the other."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, number: int, message: Message) -> None:
        data = packed_message(number, message)
        with self._lock:
            try:
                self._stream.write(data)
                self._stream.flush()
            except OSError:
                os.kill(os.getpid(), signal.SIGTERM)  # nobody listens any more


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until nobody asks any more."""
    out = _Answers(answers)
    got = read_message(questions)
    if got is None:
        return
    number, first = got
    threading.Thread(target=_watch, args=(first.head["parent"],), daemon=True).start()
    try:
        service = Service(Start(first.head["make"], first.head["settings"]))
    except Exception as error:
        out.send(number, Message({"error": {"kind": "EnvError", "words": f"{type(error).__name__}: {error}"}}))
        return
    out.send(number, Message({"pid": os.getpid()}))
    try:
        while (got := read_message(questions)) is not None:
            number, asked = got
            if asked.head["do"] == "ping":
                out.send(number, Message({}))
            else:
                threading.Thread(target=_answer, args=(service, out, number, asked.head), daemon=True).start()
    except ValueError:
        return  # the parent ended while it wrote
    finally:
        _ENDING.set()
        threading.Thread(target=_give_up, daemon=True).start()
        service.close()


def _answer(service: Service, out: _Answers, number: int, head: dict[str, Any]) -> None:
    out.send(number, service.answer(head))


def _watch(parent: int) -> None:
    """A pipe that somebody inherited stays open; the parent's number does not stay the same."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _give_up() -> None:
    time.sleep(_END_S)
    os._exit(1)


def _end(*_: object) -> None:
    if not _ENDING.is_set():
        _ENDING.set()
        sys.exit(0)


def main() -> None:
    """Keep the two pipes for the protocol: whatever an environment prints goes to the standard error."""
    questions = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _end)
    serve(questions, answers)


if __name__ == "__main__":
    main()
