"""What every test may ask for: a real database of its own."""

from collections.abc import AsyncIterator, Iterator

import pytest
from support.postgres import Postgres, run_postgres

from hetuflow.storage.connect import Database, StorageSettings, open_storage


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
  """A running PostgreSQL."""
  with run_postgres() as running:
    yield running


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
  """The name of a database with the schema, to copy from."""
  return postgres.make_template()


@pytest.fixture
def dsn(postgres: Postgres, template: str) -> Iterator[str]:
  """A fresh database with the schema, by its address."""
  with postgres.database(template) as name:
    yield postgres.dsn(name)


@pytest.fixture
def empty_dsn(postgres: Postgres) -> Iterator[str]:
  """A fresh database with nothing in it, by its address."""
  with postgres.database() as name:
    yield postgres.dsn(name)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
  """A fresh database with the schema, open."""
  async with open_storage(StorageSettings(dsn=dsn, statement_timeout=10)) as opened:
    yield opened
