"""The two ways in which calls are made: waiting, and under Trio.

Everything that could differ between them is kept out of here: a call knows its request
and how to read its answer, a follower knows what it still wants. What is left is sending
bytes, trying again, and turning the library's errors into ours.

GETs are tried again, a few times within seconds, where no connection came about or the
server answers 503 (it is starting, or its database is away). Nothing else is: it may
have been done.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import httpx
import stamina

from hetuflow.client.call import Call, Page
from hetuflow.client.errors import ApiError, ServerUnreachable, read_problem
from hetuflow.client.logs import LogChunk, LogFollower
from hetuflow.client.place import Place

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")

TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
QUIET_S = 60.0
"""A stream on which not even a keep-alive comes for so long is opened anew."""
SERVICE_UNAVAILABLE = 503
RETRY: dict[str, Any] = {
  "attempts": 4,
  "timeout": 10.0,
  "wait_initial": 0.1,
  "wait_max": 2.0,
}


def _worth_retrying(call: Call[Any]) -> Callable[[Exception], bool]:
  """Return what decides whether a call is sent again after an error."""

  def judge(error: Exception) -> bool:
    """Retry what is repeatable and may mend within seconds."""
    passing = isinstance(error, ServerUnreachable) or (
      isinstance(error, ApiError) and error.status == SERVICE_UNAVAILABLE
    )
    return call.repeatable and passing

  return judge


def _options(place: Place) -> dict[str, Any]:
  """Return the arguments that both kinds of httpx client take."""
  return {
    "base_url": place.url,
    "headers": {"Authorization": f"Bearer {place.key}"},
    "timeout": httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
  }


def _request(call: Call[Any]) -> dict[str, Any]:
  """Return the arguments of a request."""
  return {
    "method": call.method,
    "url": call.path,
    "params": call.parameters(),
    "headers": call.headers(),
    "content": call.content(),
  }


def _stream_request(follower: LogFollower) -> dict[str, Any]:
  """Return the arguments of the request for an event stream."""
  timeout = httpx.Timeout(QUIET_S, connect=CONNECT_TIMEOUT_S)
  return {**_request(follower.call()), "timeout": timeout}


def _unreachable(place: Place, error: httpx.RequestError) -> ServerUnreachable:
  """Say in our words that no answer came."""
  return ServerUnreachable(place.url, str(error) or type(error).__name__)


def _judge_break(place: Place, error: httpx.RequestError, *, progress: bool) -> None:
  """Let a stream that brought something break: the next one goes on from there."""
  if not progress:
    raise _unreachable(place, error) from error


def _judge_silence(place: Place, follower: LogFollower, *, progress: bool) -> None:
  """Refuse a stream that ended without one event, so that it is not opened for ever."""
  if not progress and follower.end is None:
    raise ServerUnreachable(place.url, "the stream of output ended at once")


class Client:
  """Makes calls and waits for their answers; use it as a context manager.

  Args:
    place: where the server is.
  """

  def __init__(self, place: Place) -> None:
    self.place = place
    self._http = httpx.Client(**_options(place))

  def __enter__(self) -> "Client":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Close the connections."""
    self._http.close()

  def send(self, call: Call[T]) -> T:
    """Make a call and return its answer.

    Raises:
      ApiError: the server answered with a problem.
      ServerUnreachable: no answer came.
    """
    for attempt in stamina.retry_context(on=_worth_retrying(call), **RETRY):
      with attempt:
        try:
          response = self._http.request(**_request(call))
        except httpx.RequestError as error:
          raise _unreachable(self.place, error) from error
        return call.result(response.status_code, response.content)
    raise AssertionError("stamina raises the last error")

  def pages(self, call: Call[Page[T]]) -> Iterator[T]:
    """Yield everything in a list, page by page as it is needed."""
    while True:
      page = self.send(call)
      yield from page.items
      if page.next_cursor is None:
        return
      call = call.after(page.next_cursor)

  def follow(self, follower: LogFollower) -> Iterator[LogChunk]:
    """Yield output as it comes until the instance ends; then ``follower.end`` is there.

    Raises:
      ApiError: the server answered with a problem.
      ServerUnreachable: the connection broke and no new one came about.
    """
    while follower.end is None:
      for attempt in stamina.retry_context(
        on=_worth_retrying(follower.call()), **RETRY
      ):
        with attempt:
          heard = follower.heard
          try:
            with self._http.stream(**_stream_request(follower)) as response:
              if response.status_code != httpx.codes.OK:
                raise read_problem(response.status_code, response.read())
              for data in response.iter_bytes():
                yield from follower.feed(data)
          except httpx.RequestError as error:
            _judge_break(self.place, error, progress=follower.heard > heard)
          _judge_silence(self.place, follower, progress=follower.heard > heard)


class AsyncClient:
  """Makes calls under Trio; use it as an async context manager.

  Args:
    place: where the server is.
  """

  def __init__(self, place: Place) -> None:
    self.place = place
    self._http = httpx.AsyncClient(**_options(place))

  async def __aenter__(self) -> "AsyncClient":
    return self

  async def __aexit__(self, *_: object) -> None:
    await self.aclose()

  async def aclose(self) -> None:
    """Close the connections."""
    await self._http.aclose()

  async def send(self, call: Call[T]) -> T:
    """Make a call and return its answer.

    Raises:
      ApiError: the server answered with a problem.
      ServerUnreachable: no answer came.
    """
    async for attempt in stamina.retry_context(on=_worth_retrying(call), **RETRY):
      with attempt:
        try:
          response = await self._http.request(**_request(call))
        except httpx.RequestError as error:
          raise _unreachable(self.place, error) from error
        return call.result(response.status_code, response.content)
    raise AssertionError("stamina raises the last error")

  async def pages(self, call: Call[Page[T]]) -> AsyncIterator[T]:
    """Yield everything in a list, page by page as it is needed."""
    while True:
      page = await self.send(call)
      for item in page.items:
        yield item
      if page.next_cursor is None:
        return
      call = call.after(page.next_cursor)

  async def follow(self, follower: LogFollower) -> AsyncIterator[LogChunk]:
    """Yield output as it comes until the instance ends; then ``follower.end`` is there.

    Raises:
      ApiError: the server answered with a problem.
      ServerUnreachable: the connection broke and no new one came about.
    """
    while follower.end is None:
      async for attempt in stamina.retry_context(
        on=_worth_retrying(follower.call()), **RETRY
      ):
        with attempt:
          heard = follower.heard
          try:
            async with self._http.stream(**_stream_request(follower)) as response:
              if response.status_code != httpx.codes.OK:
                raise read_problem(response.status_code, await response.aread())
              async for data in response.aiter_bytes():
                for chunk in follower.feed(data):
                  yield chunk
          except httpx.RequestError as error:
            _judge_break(self.place, error, progress=follower.heard > heard)
          _judge_silence(self.place, follower, progress=follower.heard > heard)
