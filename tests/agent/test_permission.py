"""Whether an attempt may start, and what must end with the lease of the session."""

from datetime import UTC, datetime

import attrs
import pytest
import trio
from agent_stage import make_config, make_job, make_task, running_agent, settled
from hypothesis import given
from hypothesis import strategies as st

from hetuflow.agent.instances import Instance, Instances, Stage, Stop
from hetuflow.agent.timing.clock import DisciplinedClock, Lease
from hetuflow.agent.work.evictor import Evictor
from hetuflow.agent.work.permission import Permission, runs_alone
from hetuflow.protocol.messages import MessageKind
from hetuflow.protocol.states import TaskInstanceStatus as S

ALONE = {"overlap": "queue"}
SESSION_LEASE = 30.0


@attrs.define(kw_only=True)
class Hands:
  """A clock and a lease on a base that a test sets; the database's time is the base."""

  now: float = 1_000_000_000.0
  clock: DisciplinedClock = attrs.field(init=False)
  lease: Lease = attrs.field(init=False)

  def __attrs_post_init__(self) -> None:
    self.clock = DisciplinedClock(base=lambda: self.now, wall=lambda: self.now)
    self.lease = Lease(monotonic=lambda: self.now, boot=lambda: self.now)

  def renew(self, seconds: float = SESSION_LEASE) -> None:
    """Let a server answer a heartbeat at once."""
    self.clock.observe(t_sent=self.now, t_server=self.now, t_received=self.now)
    self.lease.renew(seconds, self.lease.anchor())

  def may_start(self, instance: Instance) -> bool:
    """Ask as the executor does."""
    return Permission(clock=self.clock, lease=self.lease).refusal(instance) is None


def make_instance(
  hands: Hands, *, due_in: float, lease: float = 30.0, **config: object
) -> Instance:
  """An attempt that is handed out now, and due in so many seconds."""
  due_at = datetime.fromtimestamp(hands.now + due_in, UTC)
  task = attrs.evolve(
    make_task(lease=lease), due_at=due_at, scheduled_at=due_at, held=due_in > 0
  )
  job = make_job("/bin/true", **config)
  return Instance(task=task, job=job, stage=Stage.HELD)


@given(
  due_in=st.floats(-100, 900),
  task_lease=st.floats(1, 900),
  session_lease=st.floats(0.5, 600),
  renewals=st.lists(st.floats(0, 20), max_size=5),
  silence=st.floats(0, 2_000),
  restarted=st.booleans(),
  alone=st.booleans(),
)
def test_an_attempt_starts_only_while_no_server_gives_it_to_another(
  due_in: float,
  task_lease: float,
  session_lease: float,
  renewals: list[float],
  silence: float,
  restarted: bool,
  alone: bool,
) -> None:
  hands = Hands()
  instance = make_instance(
    hands, due_in=due_in, lease=task_lease, **(ALONE if alone else {})
  )
  hands.renew(session_lease)
  for pause in renewals:
    hands.now += pause
    hands.renew(session_lease)
  # As `storage/reaping.sql` says: the session's lease, and what has not started is good
  # until its time and its lease at least.
  lost_at = max(hands.now + session_lease, instance.due_at + task_lease)
  if restarted:
    instance = Instance(
      task=attrs.evolve(instance.task, held=True), job=instance.job, stage=Stage.HELD
    )
    hands.lease = Lease(monotonic=lambda: hands.now, boot=lambda: hands.now)
  hands.now += silence
  if hands.may_start(instance):
    assert hands.now < lost_at


@pytest.mark.parametrize(("after", "starts"), [(26.9, True), (27.1, False)])
def test_a_held_attempt_starts_without_a_session_for_most_of_its_lease(
  after: float, starts: bool
) -> None:
  hands = Hands()
  hands.renew()
  instance = make_instance(hands, due_in=100.0)
  hands.now = instance.due_at + after
  assert hands.may_start(instance) is starts


def test_what_the_clock_may_be_off_is_taken_off_the_lease() -> None:
  hands = Hands()
  hands.clock.observe(
    t_sent=hands.now, t_server=hands.now, t_received=hands.now, error=5.0
  )
  instance = make_instance(hands, due_in=1.0)
  hands.now = instance.due_at + 21.0
  assert hands.may_start(instance)
  hands.now = instance.due_at + 23.0
  assert not hands.may_start(instance)


def test_what_must_run_alone_does_not_start_without_a_session() -> None:
  hands = Hands()
  hands.renew()
  instance = make_instance(hands, due_in=1.0, **ALONE)
  hands.now += 25.0
  assert hands.may_start(instance)
  hands.now += 1.5  # it would have to end at once
  assert not hands.may_start(instance)


@pytest.mark.parametrize(
  ("config", "alone"),
  [
    ({}, False),
    ({"overlap": "allow"}, False),
    ({"overlap": "skip"}, True),
    ({"overlap": "replace"}, True),
    ({"max_concurrent": 3}, True),
    ({"concurrency_key": "{{ parameters.x }}"}, True),
    ({"overlap": "queue", "on_lost": "fail"}, False),
  ],
)
def test_what_has_a_limit_and_is_run_again_must_run_alone(
  config: dict[str, object], alone: bool
) -> None:
  assert runs_alone(make_job("/bin/true", **config).config) is alone


def running(instances: Instances, **config: object) -> Instance:
  """Put a running attempt into the ledger."""
  instance = instances.admit(make_task(), make_job("/bin/true", **config))
  assert instance is not None
  instances.move(instance, Stage.RUNNING)
  return instance


def test_only_what_must_run_alone_is_ended_and_only_with_the_lease() -> None:
  hands, instances = Hands(), Instances()
  alone, free = running(instances, kill_grace=60.0, **ALONE), running(instances)
  evictor = Evictor(instances=instances, lease=hands.lease)
  hands.renew()
  hands.now += 25.9
  assert evictor.evict_once() == 0
  hands.now += 0.2
  assert evictor.evict_once() == 1
  assert free.stop is None
  assert alone.stop is not None
  assert (alone.stop.status, alone.stop.reason) == (S.LOST, "lease expired")
  # One second is left out of the lease.
  assert 2.8 < alone.stop.grace < 3.0
  # The machine slept, or the process was frozen: no time is left.
  hands.now += 100.0
  evictor.evict_once()
  assert alone.stop.grace == 0.0


def test_who_was_asked_to_end_before_is_only_hurried() -> None:
  hands, instances = Hands(), Instances()
  alone = running(instances, **ALONE)
  alone.ask_to_stop(Stop(status=S.CANCELLED, reason="asked", grace=60.0))
  Evictor(instances=instances, lease=hands.lease).evict_once()
  assert alone.stop == Stop(status=S.CANCELLED, reason="asked", grace=0.0)


async def test_a_process_that_must_run_alone_is_killed_when_no_server_answers(
  gateway, tmp_path
):
  gateway.session = attrs.evolve(
    gateway.session, session_lease=2.5, heartbeat_interval=0.5
  )
  alone, free = make_task(), make_task()
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      job = make_job("/bin/sleep", args=["600"], **ALONE)
      await gateway.dispatch(alone, job=job)
      await gateway.dispatch(free, job=make_job("/bin/sleep", args=["600"]))
      await gateway.started(alone.instance_id)
      await gateway.started(free.instance_id)
      gateway.silent |= {MessageKind.HEARTBEAT_REQUEST, MessageKind.ACK}
      gateway.silent |= {MessageKind.AGENT_REGISTER_REQUEST}
      ledger = agent.parts.instances
      kept, ended = ledger.get(free.instance_id), ledger.get(alone.instance_id)
      await settled(lambda: ended.stage is Stage.FINISHED)
      assert kept.stage is Stage.RUNNING
      gateway.silent.clear()
      result = await gateway.result(alone.instance_id)
      assert (result.status, result.reason) == (S.LOST, "lease expired")
      assert not [u for u in gateway.updates(free.instance_id) if u.completed_at]
