"""Where the servers are and what opens their door, looked up anew for each attempt."""

import json
from itertools import cycle

from attrs import field, frozen

from hetuflow.agent.config import AgentConfig, find_token

__all__ = ["Endpoint", "Endpoints"]

DEFAULT_URL = "ws://127.0.0.1:8080/ws"


@frozen(kw_only=True)
class Endpoint:
  """One gateway and the token it asks for."""

  url: str
  token: str = field(repr=False)


class Endpoints:
  """The servers' gateways, in turn.

  Without a configured server the last one started on the same DATA_DIR is taken: its
  port may change with each start.

  Args:
    config: the agent's settings.
  """

  def __init__(self, config: AgentConfig) -> None:
    self._config = config
    self._urls = cycle(config.agent.server)

  def next(self) -> Endpoint | None:
    """Return where to connect now; None while there is no token.

    Raises:
      SettingsError: the file named for the token cannot be read or is empty, or what is
        there cannot be a token.
    """
    token = find_token(self._config)
    if token is None:
      return None
    url = next(self._urls, None) or self._local_url() or DEFAULT_URL
    return Endpoint(url=url, token=token)

  def _local_url(self) -> str | None:
    """Read the gateway's address from ``server.json``, None if there is none."""
    file = self._config.agent.data_dir / "server.json"
    try:
      url = json.loads(file.read_bytes())["url"]
      scheme, found, rest = url.rstrip("/").partition("://")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
      return None
    secure = {"http": "ws", "https": "wss"}
    return f"{secure[scheme]}://{rest}/ws" if found and scheme in secure else None
