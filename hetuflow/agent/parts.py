"""The parts of an agent and who knows whom: all of the wiring, in one place."""

from collections.abc import Callable, Sequence
from uuid import UUID

from attrs import frozen

from hetuflow.agent.config import AgentConfig
from hetuflow.agent.control import Control
from hetuflow.agent.executors.process import ProcessExecutor, process_argv
from hetuflow.agent.executors.python import PythonExecutor
from hetuflow.agent.executors.shell import shell_argv
from hetuflow.agent.instances import Instance, Instances
from hetuflow.agent.journal import Journal
from hetuflow.agent.link.connection import Connection
from hetuflow.agent.link.endpoints import Endpoints
from hetuflow.agent.link.heartbeat import ClockKeeper, Exchanges, Heartbeat
from hetuflow.agent.link.link import Link
from hetuflow.agent.link.registration import Registration
from hetuflow.agent.monitor import Monitor
from hetuflow.agent.process import Helper
from hetuflow.agent.puller import Puller
from hetuflow.agent.reporting.outbox import Outbox
from hetuflow.agent.timing.clock import DisciplinedClock, Lease
from hetuflow.agent.timing.wheel import WheelDriver
from hetuflow.agent.work.evictor import Evictor
from hetuflow.agent.work.executor import Executor
from hetuflow.agent.work.intake import Intake
from hetuflow.agent.work.orphans import Orphans
from hetuflow.agent.work.permission import Permission
from hetuflow.agent.work.recovery import Recovery
from hetuflow.agent.work.spawned import Spawned
from hetuflow.nursery import Crowd
from hetuflow.protocol.messages import MessageKind
from hetuflow.protocol.states import ExecutorKind

__all__ = ["Parts", "wire_parts"]

MAX_CLOCK_ERROR_MS = 1000.0
"""Beyond it this agent does not vouch for firing on time and takes nothing new."""


@frozen(kw_only=True)
class Parts:
  """What the tree runs."""

  config: AgentConfig
  instances: Instances
  connection: Connection
  clock_keeper: ClockKeeper
  heartbeat: Heartbeat
  outbox: Outbox
  executor: Executor
  crowd: Crowd
  wheel: WheelDriver[Instance]
  intake: Intake
  puller: Puller
  recovery: Recovery


def wire_parts(
  config: AgentConfig, journal: Journal, helper: Helper, shut_down: Callable[[], None]
) -> Parts:
  """Make every part and connect them.

  Args:
    config: the settings.
    journal: open for as long as the parts are used.
    helper: likewise.
    shut_down: drains the whole tree, for the server's command.
  """
  settings = config.agent
  link, instances = Link(), Instances()
  clock, lease = DisciplinedClock(), Lease()
  crowd = Crowd("instance", doc="process, stdout, stderr, deadline")

  def supersede(instance_ids: Sequence[UUID]) -> None:
    """Reach the control, which needs the outbox that needs this."""
    control.supersede(instance_ids)

  outbox = Outbox(
    link=link,
    journal=journal,
    instances=instances,
    buffer_bytes=settings.max_output_buffer,
    supersede=supersede,
  )
  spawned = Spawned(journal=journal)
  functions = PythonExecutor(
    clock=clock, instances=instances, crowd=crowd, threads=settings.max_concurrent
  )
  processes = {
    kind: ProcessExecutor(argv, clock=clock, helper=helper, note_spawned=spawned.note)
    for kind, argv in (
      (ExecutorKind.PROCESS, process_argv),
      (ExecutorKind.SHELL, shell_argv),
    )
  }
  orphans = Orphans(outbox=outbox, clock=clock)
  executor = Executor(
    journal=journal,
    outbox=outbox,
    instances=instances,
    clock=clock,
    permission=Permission(clock=clock, lease=lease),
    evictor=Evictor(instances=instances, lease=lease),
    runners={**processes, ExecutorKind.PYTHON: functions},
    functions=functions,
    orphans=orphans,
    spawned=spawned,
    crowd=crowd,
    max_concurrent=settings.max_concurrent,
    drain_timeout=settings.drain_timeout,
    kill_grace=settings.kill_grace,
  )
  wheel: WheelDriver[Instance] = WheelDriver(clock, executor.submit)
  puller = Puller(
    link=link,
    instances=instances,
    may_take=lambda: not journal.full and clock.error_ms <= MAX_CLOCK_ERROR_MS,
    max_concurrent=settings.max_concurrent,
    hold=settings.hold,
  )
  intake = Intake(
    link=link,
    journal=journal,
    instances=instances,
    clock=clock,
    wheel=wheel,
    executor=executor,
    note_dispatched=puller.note_dispatched,
  )
  control = Control(
    instances=instances,
    intake=intake,
    executor=executor,
    outbox=outbox,
    puller=puller,
    shut_down=shut_down,
  )
  monitor = Monitor(
    instances=instances,
    outbox=outbox,
    executors=[*processes, ExecutorKind.PYTHON],
    max_concurrent=settings.max_concurrent,
    hold=settings.hold,
  )
  exchanges = Exchanges(clock=clock, lease=lease, monitor=monitor)
  connection = Connection(
    link=link,
    endpoints=Endpoints(config),
    registration=Registration(
      config=config,
      journal=journal,
      instances=instances,
      monitor=monitor,
      clock=clock,
      lease=lease,
      supersede=control.supersede,
    ),
    intake=intake.run,
    handlers={
      MessageKind.ACK: outbox.note_ack,
      MessageKind.HEARTBEAT_RESPONSE: exchanges.note_response,
      MessageKind.DISPATCH_TASK_REQUEST: intake.note_dispatch,
      MessageKind.AGENT_COMMAND: control.note_command,
    },
  )
  return Parts(
    config=config,
    instances=instances,
    connection=connection,
    clock_keeper=ClockKeeper(link=link, exchanges=exchanges, clock=clock),
    heartbeat=Heartbeat(link=link, exchanges=exchanges),
    outbox=outbox,
    executor=executor,
    crowd=crowd,
    wheel=wheel,
    intake=intake,
    puller=puller,
    recovery=Recovery(
      journal=journal,
      instances=instances,
      clock=clock,
      intake=intake,
      executor=executor,
      outbox=outbox,
      orphans=orphans,
    ),
  )
