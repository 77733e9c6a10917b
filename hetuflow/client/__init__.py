"""The HTTP API for Python.

Each call is described once, as plain data that knows how its answer is read
(``hetuflow.client.calls``); ``Client`` makes calls and waits, ``AsyncClient`` makes the
same calls under Trio. Answers are the models of ``hetuflow.protocol``::

  from hetuflow.client import Client, find_server
  from hetuflow.client.calls import jobs

  with Client(find_server()) as client:
    for job in client.pages(jobs.list_jobs(namespace_id="default")):
      client.send(jobs.run_job(job.id, {"parameters": {"day": 3}}))
"""

from hetuflow.client.call import Call, Page
from hetuflow.client.errors import ApiError, ServerUnreachable
from hetuflow.client.logs import LogChunk, LogEnd, LogFollower, LogPage
from hetuflow.client.place import Place, find_server
from hetuflow.client.transport import AsyncClient, Client

__all__ = [
  "ApiError",
  "AsyncClient",
  "Call",
  "Client",
  "LogChunk",
  "LogEnd",
  "LogFollower",
  "LogPage",
  "Page",
  "Place",
  "ServerUnreachable",
  "find_server",
]
