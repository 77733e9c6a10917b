"""What the agent's tests share."""

import pytest
from agent_stage import Gateway


@pytest.fixture
async def gateway():
  """A server's end of the wire that listens."""
  async with Gateway().serving() as listening:
    yield listening
