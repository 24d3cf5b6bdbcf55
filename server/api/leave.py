"""
A client that leaves ends the work that is done for it, whether it was to get a stream or one
answer.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LeaveWatch:
    """
    Once a body has been read whole, the next thing that `receive` can tell is that the client has
    gone: then the task that answers is cancelled, and whatever it holds is let go on its way out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(receive)
        try:
            await self.app(scope, visit.receive, send)
        except asyncio.CancelledError:
            if not visit.has_left:
                raise
            visit.answering.uncancel()
        finally:
            if visit.watching is not None:
                visit.watching.cancel()


class Visit:
    def __init__(self, receive: Receive) -> None:
        answering = asyncio.current_task()
        assert answering is not None
        self._receive, self.answering = receive, answering
        self.watching: asyncio.Task[None] | None = None
        self.has_left = False

    async def receive(self) -> Message:
        if self.watching is not None:
            await asyncio.Future()  # the watcher alone listens now
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._leave()
            await asyncio.Future()  # left while uploading: it is cancelled here
        if not message.get("more_body", False):
            self.watching = asyncio.create_task(self._watch())
        return message

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.has_left = True
        self.answering.cancel()
