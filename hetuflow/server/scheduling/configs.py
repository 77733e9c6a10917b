"""What claimed tasks run with: the frozen configurations, each read once.

Run by: the poller, in its own task. Owns the cache. A configuration that today's rules
refuse, because an older version of this program took it or somebody wrote it by hand, is
told and not kept: its tasks fail, the others go on.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from uuid import UUID

import structlog

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import NamedConfig
from hetuflow.protocol.model import TaskConfig
from hetuflow.storage.connect import Database
from hetuflow.storage.transitions import load_configs

__all__ = ["FrozenConfigs", "Version"]

CACHED = 5_000
CACHED_BYTES = 32 * 1024**2
"""Bytes of JSON that are kept: one configuration may be some MiB large."""

Version = tuple[UUID, int]
"""A job and the version of it that a task was planned with."""

_log = structlog.get_logger()


class FrozenConfigs:
  """Configurations by job and version.

  Args:
    database: where they are.
  """

  def __init__(self, database: Database) -> None:
    self._database = database
    self._known: OrderedDict[Version, tuple[NamedConfig, int]] = OrderedDict()
    self.size = 0
    """Bytes of JSON that are kept now."""

  def __getitem__(self, version: Version) -> NamedConfig:
    """Return a configuration that was learned."""
    return self._known[version][0]

  async def learn(self, wanted: Set[Version]) -> Mapping[Version, str]:
    """Read those that are not known.

    Args:
      wanted: what will be asked for next.

    Returns:
      Why those that cannot be used cannot.

    Raises:
      Unavailable: the database is away.
    """
    for version in wanted & self._known.keys():
      self._known.move_to_end(version)
    missing = sorted(wanted - self._known.keys())
    problems = await self._read(missing) if missing else {}
    # What is wanted now was touched last, and stays whatever its size.
    while len(self._known) > len(wanted) and (
      len(self._known) > CACHED + len(wanted) or self.size > CACHED_BYTES
    ):
      _, (_, size) = self._known.popitem(last=False)
      self.size -= size
    return problems

  async def _read(self, missing: Sequence[Version]) -> dict[Version, str]:
    """Read configurations and keep those that can be used."""
    problems = dict.fromkeys(missing, "its configuration is gone")
    for row in await load_configs(self._database, missing):
      version = row["job_id"], row["version"]
      try:
        config = wire.load(TaskConfig, row["config"])
      except ProtocolError as error:
        problems[version] = f"its configuration cannot be used: {error}"
      else:
        del problems[version]
        named = NamedConfig(job_name=row["name"], config=config)
        size = len(wire.encode(named))
        self._known[version] = named, size
        self.size += size
    for (job_id, number), problem in problems.items():
      _log.error("config_unusable", job_id=str(job_id), version=number, problem=problem)
    return problems
