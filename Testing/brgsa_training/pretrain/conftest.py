"""Fixtures of the pretraining tests."""

import socket

import pytest


@pytest.fixture
def free_port():
    """A function that returns the number of a port that nobody listens on."""

    def find() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    return find
