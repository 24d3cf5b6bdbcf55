"""The event loop's end of a call: updates come a step at a time and leave one by one, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from server.engine.request import Update


class Stream:
    """`async with engine.submit(requests) as stream: async for index, update in stream: ...`

    It ends after the last request's ending. Leaving it cancels whatever has not ended. Behind a
    slow reader at most max_tokens updates a request pile up. Used on one event loop only.
    """

    def __init__(self, tickets: Sequence[int], cancel: Callable[[int, bool], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._tickets, self._cancel = tickets, cancel
        self._open = set(range(len(tickets)))  # endings not yet arrived
        self._arrived: deque[tuple[int, Update]] = deque()
        self._news = asyncio.Event()

    def cancel(self, index: int) -> None:
        """It has said enough (a stop string). What a running step draws comes, then its ending."""
        if index in self._open:
            self._cancel(self._tickets[index], True)

    def receive(self, index: int, update: Update) -> None:
        """The engine's side, already on this loop."""
        if update.ending:
            self._open.discard(index)
        self._arrived.append((index, update))
        self._news.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for index in self._open:
            self._cancel(self._tickets[index], False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Update]:
        while not self._arrived:
            if not self._open:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._arrived.popleft()
