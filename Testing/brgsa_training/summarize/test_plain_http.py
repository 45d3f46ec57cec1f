"""The transport for unencrypted servers, against answers that the stand-in does not give."""

import asyncio

import pytest

from brgsa_training.summarize.plain_http import PlainHTTPTransport, http


async def _exchange(*answers: bytes, requests: int = 1):
    """Serve the answers one after another, close after the last, and return (contents, number of connections)."""
    connections = 0
    left = list(answers)

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        while left:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    contents = []
    async with http.AsyncClient(transport=PlainHTTPTransport(), timeout=5) as client:
        for _ in range(requests):
            contents.append((await client.get(f"http://127.0.0.1:{port}/x")).content)
    server.close()
    return contents, connections


def test_a_chunked_answer_is_put_together():
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n"
    assert asyncio.run(_exchange(answer))[0] == [b"abcdefg"]


def test_an_answer_without_a_length_ends_with_the_connection():
    assert asyncio.run(_exchange(b"HTTP/1.1 200 OK\r\n\r\nabc"))[0] == [b"abc"]


def test_a_connection_is_used_again():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert asyncio.run(_exchange(*[answer] * 3, requests=3)) == ([b"ok"] * 3, 1)


def test_a_compressed_answer_is_read():
    import gzip

    body = gzip.compress(b"hello")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert asyncio.run(_exchange(head + body))[0] == [b"hello"]


@pytest.mark.parametrize("answer", [b"HELLO\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
def test_what_is_not_http_is_an_error(answer):
    with pytest.raises(http.RemoteProtocolError):
        asyncio.run(_exchange(answer))


def test_a_connection_that_ends_too_early_is_an_error():
    with pytest.raises(http.ReadError, match="broke off"):
        asyncio.run(_exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
