"""Decorating whatever can be called: functions, asynchronous ones, generators, and methods of all kinds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

__all__ = ["Call", "MakeCall", "wrapped"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Call(Protocol):
    """One call of a decorated function. `begin` is called first, then one of the last three, once."""

    def begin(self) -> None:
        """The function's body is about to run; what this raises keeps it from that."""

    def step(self) -> AbstractContextManager[None]:
        """Return what is entered while the body runs; a generator's body runs several times."""

    def done(self) -> None:
        """The body has come to its end."""

    def failed(self, error: BaseException) -> None:
        """An exception has left the body."""

    def left(self) -> None:
        """The body was given up in the middle. This may be called by a finalizer, at any moment."""


MakeCall = Callable[[tuple[Any, ...], Mapping[str, Any]], Call]


def wrapped(function: _Function, make: MakeCall) -> _Function:
    """Wrap a function of any kind in another one of the same kind and signature.

    Args:
        function: A function, or a `classmethod` or `staticmethod` of one.
        make: Makes the `Call` from the arguments.

    Raises:
        TypeError: It is neither.
    """
    given: Any = function
    if isinstance(given, classmethod | staticmethod):
        return type(given)(wrapped(given.__func__, make))  # type: ignore[return-value]  # of the same kind
    if inspect.isclass(given) or not callable(given):
        raise TypeError(f"only functions and methods can be decorated, not {ascii(given)[:100]}")
    if inspect.isasyncgenfunction(given):
        result = _async_generator(given, make)
    elif inspect.iscoroutinefunction(given):
        result = _coroutine(given, make)
    elif inspect.isgeneratorfunction(given):
        result = _generator(given, make)
    else:
        result = _plain(given, make)
    return functools.wraps(given)(result)  # type: ignore[return-value]  # with the same signature


def _plain(function: Any, make: MakeCall) -> Any:
    def call_it(*arguments: Any, **named: Any) -> Any:
        call = make(arguments, named)
        call.begin()
        try:
            with call.step():
                result = function(*arguments, **named)
        except BaseException as error:
            call.failed(error)
            raise
        call.done()
        return result

    return call_it


def _coroutine(function: Any, make: MakeCall) -> Any:
    async def await_it(*arguments: Any, **named: Any) -> Any:
        call = make(arguments, named)
        call.begin()
        try:
            with call.step():
                result = await function(*arguments, **named)
        except GeneratorExit:  # nobody awaits it any more
            call.left()
            raise
        except BaseException as error:
            call.failed(error)
            raise
        call.done()
        return result

    return await_it


def _generator(function: Any, make: MakeCall) -> Any:
    def iterate(*arguments: Any, **named: Any) -> Any:
        call = make(arguments, named)
        call.begin()
        inner = function(*arguments, **named)
        advance, given, result = inner.send, None, None
        try:
            while True:
                try:
                    with call.step():
                        value = advance(given)
                except StopIteration as stop:
                    result = stop.value
                    break
                try:
                    given = yield value
                    advance = inner.send
                except GeneratorExit:
                    with call.step():
                        inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the caller: the body's to handle
                    advance, given = inner.throw, error
        except GeneratorExit:
            call.left()
            raise
        except BaseException as error:
            call.failed(error)
            raise
        call.done()
        return result

    return iterate


def _async_generator(function: Any, make: MakeCall) -> Any:
    async def iterate(*arguments: Any, **named: Any) -> Any:
        call = make(arguments, named)
        call.begin()
        inner = function(*arguments, **named)
        advance, given = inner.asend, None
        try:
            while True:
                try:
                    with call.step():
                        value = await advance(given)
                except StopAsyncIteration:
                    break
                try:
                    given = yield value
                    advance = inner.asend
                except GeneratorExit:
                    with call.step():
                        await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - as above
                    advance, given = inner.athrow, error
        except GeneratorExit:
            call.left()
            raise
        except BaseException as error:
            call.failed(error)
            raise
        call.done()

    return iterate
