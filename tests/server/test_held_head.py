"""An answer's head leaves with its body, and never waits for one that does not come."""

import asyncio

import pytest

from server.http import HeldHead

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Recorded:
    """What the system was given, in order."""

    def __init__(self):
        self.sent = []

    def write(self, data):
        self.sent.append(data)

    def write_eof(self):
        self.sent.append("eof")

    def close(self):
        self.sent.append("close")

    def is_closing(self):
        return self.sent[-1:] == ["close"]


def sent(*calls):
    """By these calls of one turn of the event loop; and after the next turn."""

    async def act():
        transport = Recorded()
        held = HeldHead(transport, asyncio.get_running_loop())
        for name, *arguments in calls:
            getattr(held, name)(*arguments)
        at_once = list(transport.sent)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert held.is_closing() == transport.is_closing()
        return at_once, transport.sent

    return asyncio.run(act())


@pytest.mark.parametrize(
    ("calls", "at_once", "later"),
    [
        ([("write", HEAD), ("write", b"ok")], [HEAD + b"ok"], []),
        ([("write", HEAD)], [], [HEAD]),
        ([("write", HEAD), ("write", b"a"), ("write", b"b")], [HEAD + b"a", b"b"], []),
        ([("write", HEAD), ("write_eof",)], [HEAD, "eof"], []),
        ([("write", HEAD), ("close",)], [HEAD, "close"], []),
        ([("write", b"5\r\nHTTP/\r\n")], [b"5\r\nHTTP/\r\n"], []),
    ],
)
def test_all_bytes_leave_in_order(calls, at_once, later):
    first, all_of_it = sent(*calls)
    assert first == at_once
    assert all_of_it == at_once + later
