"""The jobs with which an empty installation shows what it can do."""

import json
from pathlib import Path
from typing import Any

from hetuflow.client import AsyncClient, find_server
from hetuflow.client.calls import jobs
from hetuflow.errors import HetuflowError
from hetuflow.protocol import wire
from hetuflow.protocol.model import JobForCreate

__all__ = ["load_examples", "read_examples"]

NAMESPACE = "default"


def read_examples() -> list[JobForCreate]:
  """Read the examples, from the installed package or from the source tree."""
  here = Path(__file__).parent
  packaged = here / "examples" / "jobs.json"
  source = here.parent.parent / "examples" / "jobs.json"
  file = packaged if packaged.exists() else source
  bodies: list[Any] = json.loads(file.read_text("utf-8"))
  return [wire.load(JobForCreate, body, strict=True) for body in bodies]


async def load_examples(url: str, data_dir: Path) -> tuple[list[str], str | None]:
  """Make the examples if the default namespace has no job.

  Nothing is raised for a failure: examples are no reason not to start.

  Returns:
    The names of the jobs that were made, and what went wrong.
  """
  made: list[str] = []
  try:
    async with AsyncClient(find_server(server=url, data_dir=data_dir)) as client:
      page = await client.send(jobs.list_jobs(namespace_id=NAMESPACE, limit=1))
      if page.items:
        return [], None
      for job in read_examples():
        await client.send(jobs.create_job(job))
        made.append(job.name)
  except (HetuflowError, OSError, ValueError) as error:
    return made, str(error)
  return made, None
