# SPDX-License-Identifier: Apache-2.0
"""How the synchronous client runs the asynchronous one's code without an event loop and without a copy of it.

With a `BlockingPort` beneath it, no coroutine of this package ever suspends, so one step runs it to its end.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)


class Face(Protocol[C_co]):
    """A synchronous object and the asynchronous one behind it."""

    @property
    def core(self) -> C_co: ...


def now(awaitable: Awaitable[R]) -> R:
    """The result of an awaitable that never suspends."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        value: R = end.value
        return value
    raise RuntimeError("a blocking call tried to suspend")


class _Method(Generic[C, P, R]):
    """Descriptor: the method of the face that calls the core's."""

    def __init__(self, call: Callable[Concatenate[C, P], R], source: Callable[..., Any]) -> None:
        self._call = call
        self.__doc__ = source.__doc__
        self.__wrapped__ = source

    def __get__(self, face: Face[C], owner: type | None = None) -> Callable[P, R]:
        core = None if face is None else face.core

        def method(*args: P.args, **kwargs: P.kwargs) -> R:
            assert core is not None, "called on the class, not on a client"
            return self._call(core, *args, **kwargs)

        return update_wrapper(method, self.__wrapped__)


def blocking(source: Callable[Concatenate[C, P], Coroutine[Any, Any, R]]) -> _Method[C, P, R]:
    """The synchronous method of a core's coroutine method."""

    def call(core: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return now(source(core, *args, **kwargs))

    return _Method(call, source)


def blocking_as(
    wrap: Callable[[R], S], source: Callable[Concatenate[C, P], Coroutine[Any, Any, R]]
) -> _Method[C, P, S]:
    """The same, with the result wrapped into its own synchronous face."""

    def call(core: C, /, *args: P.args, **kwargs: P.kwargs) -> S:
        return wrap(now(source(core, *args, **kwargs)))

    return _Method(call, source)


def iterating(source: Callable[Concatenate[C, P], AsyncGenerator[R, None]]) -> _Method[C, P, Iterator[R]]:
    """The synchronous iterator of a core's asynchronous generator."""

    def call(core: C, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        return _iterate(source(core, *args, **kwargs))

    return _Method(call, source)


def _iterate(source: AsyncGenerator[R, None]) -> Iterator[R]:
    try:
        while True:
            try:
                value = now(source.__anext__())
            except StopAsyncIteration:
                return
            yield value
    finally:
        now(source.aclose())
