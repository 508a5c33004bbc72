"""Questions of replication over the link: how an array is asked, and service 3, to which others' questions come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arrayd.link.channel import Call, LinkError, Request, Service
from arrayd.replication.asking import SERVICE, Outcome, Question, decode_question, refused
from arrayd.replication.journal.format import FormatError
from arrayd.replication.stages import Answer, Ask

Send = Callable[[str, Request], None]
"""`send(array, request)` puts a request on the link with an array."""


def asker(send: Send) -> Ask:
    """How questions are asked. A long answer stays where it was received."""

    async def ask(array: str, question: bytes, expects: int) -> Answer:
        came: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def ended(answer: memoryview | LinkError) -> None:
            if came.done():
                return
            if isinstance(answer, LinkError):
                came.set_exception(answer)
            elif request.buffer is None:
                came.set_result(Answer(memoryview(bytes(answer))))
            else:
                came.set_result(Answer(answer, request.buffer))
                request.buffer = None

        def wanted() -> bool:
            return not came.done()

        request = Request(SERVICE, question[:1], question[1:], expects, ended, wanted)
        send(array, request)
        try:
            return await came
        except asyncio.CancelledError:
            if came.done() and not came.cancelled() and came.exception() is None:
                came.result().release()
            raise

    return ask


def service(take: Callable[[Question, Call], None]) -> Service:
    """Service 3 for one array: `take(question, call)` is given what can be read, and the rest is answered here."""

    def serve(call: Call, payload: memoryview) -> None:
        try:
            question = decode_question(payload)
        except FormatError as error:
            call.answer(refused(Outcome.FAILED, str(error)))
            return
        take(question, call)

    return serve
