"""The API on a real database, called through Quart's test client."""

from typing import Any

import pytest
from support.api import MAX_BODY_SIZE, Api, Sessions, Wakes

from hetuflow.protocol.model import ServerId, new_id
from hetuflow.server.api import ApiServices, create_app
from hetuflow.storage.access import create_api_key
from hetuflow.storage.connect import Database


@pytest.fixture
def sessions() -> Sessions:
  return Sessions()


@pytest.fixture
def wakes() -> Wakes:
  return Wakes()


@pytest.fixture
def settings() -> dict[str, Any]:
  """What a test sets otherwise."""
  return {}


@pytest.fixture
async def api(
  database: Database,
  sessions: Sessions,
  wakes: Wakes,
  settings: dict[str, Any],
) -> Api:
  _, key = await create_api_key(database, "admin")
  services = ApiServices(
    database=database,
    gateway=sessions,
    tree=lambda: {"name": "server", "state": "running"},
    server_id=ServerId(new_id()),
    version="0.0.test",
    wake=wakes,
    max_body_size=MAX_BODY_SIZE,
    **settings,
  )
  return Api(app=create_app(services), services=services, key=key)
