"""Where the servers are and what opens their door, looked up anew for each attempt."""

from contextlib import suppress
from itertools import cycle

from attrs import field, frozen

from hetuflow.agent.config import AgentConfig, find_token
from hetuflow.ready import read_ready, ready_files

__all__ = ["Endpoint", "Endpoints"]

DEFAULT_URL = "ws://127.0.0.1:8080/ws"
SCHEMES = {"http": "ws", "https": "wss"}


@frozen(kw_only=True)
class Endpoint:
  """One gateway and the token it asks for."""

  url: str
  token: str = field(repr=False)


class Endpoints:
  """The servers' gateways, in turn.

  Without a configured server the last one started on the same DATA_DIR is taken: its
  port may change with each start. The token of that folder goes to a server only that
  runs on it: who opened its port after a crash might be anybody.

  Args:
    config: the agent's settings.
  """

  def __init__(self, config: AgentConfig) -> None:
    self._config = config
    self._urls = cycle(config.agent.server)

  def next(self) -> Endpoint | None:
    """Return where to connect now; None while there is no token or no server for it.

    Raises:
      SettingsError: the file named for the token cannot be read or is empty, or what is
        there cannot be a token.
    """
    token = find_token(self._config)
    if token is None:
      return None
    settings = self._config.agent
    url = next(self._urls, None) or self._local_url()
    if url is None and (settings.token or settings.token_file):
      url = DEFAULT_URL
    return None if url is None else Endpoint(url=url, token=token)

  def _local_url(self) -> str | None:
    """Find the gateway of a server that runs on the same DATA_DIR, None if none does."""
    for file in ready_files(self._config.agent.data_dir):
      with suppress(OSError, ValueError, LookupError):
        ready = read_ready(file)
        if ready is not None and ready.is_running:
          scheme, _, rest = ready.url.partition("://")
          return f"{SCHEMES[scheme]}://{rest}/ws"
    return None
