"""Processes of a script itself that answer questions over a pipe: clients, devices, ends of a ring."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any


@contextmanager
def worker(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """A process that says that it is ready, and answers what is sent to it until the pipe is closed."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=target, args=(*arguments, there))
    process.start()
    there.close()
    try:
        here.recv()
        yield here
    finally:
        here.close()
        process.join(5)
        if process.is_alive():
            process.terminate()
            process.join()


def answer_each(pipe: Connection, answer: Callable[[Any], object]) -> None:
    """In the process: it is ready; each question goes to `answer`, until the pipe is closed."""
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            answer(pipe.recv())


def ask(asked: Connection, question: object) -> Any:
    """Raises what the worker answers with, if that is an exception."""
    asked.send(question)
    answer = asked.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer
