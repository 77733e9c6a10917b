"""``hetuflow preview``: when an expression fires.

It is computed here without a server, unless calendars are to be heeded, which are there.
"""

from datetime import datetime

import click

from hetuflow.cli.options import calendar_option
from hetuflow.cli.session import Command, Session, json_option, pass_session
from hetuflow.cli.words import moment
from hetuflow.errors import ScheduleError

__all__ = ["preview"]

MAX_COUNT = 1_000


@click.command("preview", cls=Command)
@click.argument("expression")
@click.option("--tz", "timezone", default="UTC", show_default=True, help="IANA name.")
@click.option("--from", "start", type=moment, help="Where to begin; now by default.")
@click.option(
  "-n", "count", type=click.IntRange(1, MAX_COUNT), default=10, show_default=True
)
@calendar_option
@json_option
@pass_session
def preview(
  session: Session,
  /,
  expression: str,
  timezone: str,
  start: datetime | None,
  count: int,
  calendars: tuple[dict[str, str], ...],
  as_json: bool,
) -> None:
  """Show when a cron expression fires."""
  from hetuflow.cli import show

  times = _compute(expression, timezone, start, count)
  if calendars:
    from hetuflow.client.calls.schedules import preview_schedule

    question = {
      "namespace_id": session.here,
      "cron_expression": expression,
      "timezone": timezone,
      "start_at": start,
      "count": count,
      "calendars": list(calendars),
    }
    times = session.send(preview_schedule(question)).fire_times
  if as_json:
    show.print_json({"fire_times": times})
  else:
    show.print_times(times, timezone)


def _compute(
  expression: str, timezone: str, start: datetime | None, count: int
) -> list[datetime]:
  """Find the fires here; what is no expression or zone is a mistake of the call."""
  from hetuflow.schedule import timing

  try:
    definition = timing.Timing(
      kind="cron", cron_expression=expression, timezone=timezone
    )
  except ScheduleError as error:
    hint = {"timezone": "--tz"}.get(error.field, "EXPR")
    raise click.BadParameter(str(error), param_hint=hint) from error
  begin = start or datetime.now().astimezone()
  return timing.preview(definition, start=begin, count=count)
