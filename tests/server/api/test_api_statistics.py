"""How a job fared, through the API."""

from support.api import Api

from hetuflow.protocol.model import new_id


async def test_statistics_of_a_job_are_read_by_its_id(api: Api) -> None:
  job = await api.make_job()
  await api.post(f"jobs/{job['id']}/run")
  reply = await api.get(f"jobs/{job['id']}/stats")
  assert reply.status == 200
  assert reply.body["statuses"] == {"pending": 1}
  assert reply.body["success_rate"] is None


async def test_a_job_that_is_not_there_has_no_statistics(api: Api) -> None:
  assert (await api.get(f"jobs/{new_id()}/stats")).status == 404
