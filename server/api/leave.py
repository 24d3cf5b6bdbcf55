"""
A client that leaves ends the work that is done for it, whether it was to get a stream or one
answer.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LeaveWatch:
    """
    Once a body has been read whole, the next thing that `receive` can tell is that the client has
    gone: then the task that answers is cancelled, and whatever it holds is let go on its way out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_read = asyncio.Event()

        async def receive_body() -> Message:
            if is_read.is_set():
                await asyncio.Future()  # the watcher alone listens now
            message = await receive()
            if not message.get("more_body", False):
                is_read.set()
            if message["type"] == "http.disconnect":
                await asyncio.Future()  # left while uploading: the watcher is told of it too
            return message

        async def watch() -> None:
            await is_read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        answering = asyncio.ensure_future(self.app(scope, receive_body, send))
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not answering.done():
                answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
