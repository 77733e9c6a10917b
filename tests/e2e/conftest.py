"""One real server with one real agent for each module of tests that share them."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from support.commands import Command, World
from support.programs import (
  client_of,
  data_folder,
  dispose,
  start_agent,
  start_server,
)

from hetuflow.client import AsyncClient

AGENT_NAME = "first"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Keep tests that share a server in one worker, where tests run side by side."""
  for item in items:
    if "world" in getattr(item, "fixturenames", ()):
      item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture
def folder() -> Iterator[Path]:
  """A fresh DATA_DIR."""
  with data_folder() as fresh:
    yield fresh


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
  """A server and an agent that the tests of a module share."""
  with data_folder() as data_dir:
    server = trio.run(start_server, data_dir)
    try:
      agent = trio.run(partial(start_agent, server, name=AGENT_NAME))
      try:
        yield World(server=server, agent=agent, cli=Command(data_dir=data_dir))
      finally:
        trio.run(dispose, agent)
    finally:
      trio.run(dispose, server)


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncClient]:
  """A client of the shared server."""
  async with client_of(world.server) as opened:
    yield opened


@pytest.fixture
def cli(world: World) -> Command:
  """The command line for the shared server."""
  return world.cli
