"""Questions of replication over the link: how an array is asked, and service 3, to which others' questions come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arrayd.link.channel import Call, LinkError, Request, Service
from arrayd.replication.asking import SERVICE, Outcome, Question, decode_question, refused
from arrayd.replication.journal.format import FormatError
from arrayd.replication.stages import Ask

Send = Callable[[str, Request], None]
"""`send(array, request)` puts a request on the link with an array."""


def asker(send: Send) -> Ask:
    """How questions are asked. An answer is a copy, which lasts as long as anybody has it."""

    async def ask(array: str, question: bytes, expects: int) -> memoryview:
        came: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()

        def ended(answer: memoryview | LinkError) -> None:
            if came.done():
                return
            if isinstance(answer, LinkError):
                came.set_exception(answer)
            else:
                came.set_result(memoryview(bytes(answer)))

        def wanted() -> bool:
            return not came.done()

        send(array, Request(SERVICE, question[:1], question[1:], expects, ended, wanted))
        return await came

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
