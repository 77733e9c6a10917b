"""The cache of configurations, and its bounds."""

import pytest
from support.world import make_job

from hetuflow.protocol.model import TaskConfig
from hetuflow.server.scheduling import configs as configs_module
from hetuflow.server.scheduling.configs import FrozenConfigs
from hetuflow.storage.connect import Database


async def test_large_configurations_are_not_kept_beyond_a_number_of_bytes(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(configs_module, "CACHED_BYTES", 10_000)
  jobs = [
    await make_job(
      database,
      f"large-{number}",
      config=TaskConfig(cmd="/bin/true", args=["x" * 3_000]),
    )
    for number in range(6)
  ]
  configs = FrozenConfigs(database)
  for job in jobs:
    assert await configs.learn({(job.id, 1)}) == {}
    assert configs[job.id, 1].config == job.config
    assert configs.size <= 10_000
  with pytest.raises(KeyError):
    configs[jobs[0].id, 1]
  # A claim that names more than that has them all.
  everything = {(job.id, 1) for job in jobs}
  assert await configs.learn(everything) == {}
  assert {configs[version].job_name for version in everything} == {
    job.name for job in jobs
  }
  assert await configs.learn({(jobs[0].id, 1)}) == {}
  assert configs.size <= 10_000
