"""``hetuflow preview``: when an expression fires, computed here without a server."""

from datetime import datetime
from zoneinfo import ZoneInfo

import click

from hetuflow.cli.session import json_option
from hetuflow.cli.words import moment
from hetuflow.errors import ScheduleError

__all__ = ["preview"]

MAX_COUNT = 1_000


@click.command("preview")
@click.argument("expression")
@click.option("--tz", "timezone", default="UTC", show_default=True, help="IANA name.")
@click.option("--from", "start", type=moment, help="Where to begin; now by default.")
@click.option(
  "-n", "count", type=click.IntRange(1, MAX_COUNT), default=10, show_default=True
)
@json_option
def preview(
  expression: str, timezone: str, start: datetime | None, count: int, as_json: bool
) -> None:
  """Show when a cron expression fires."""
  from hetuflow.cli import show
  from hetuflow.schedule import timing

  try:
    definition = timing.Timing(
      kind="cron", cron_expression=expression, timezone=timezone
    )
  except ScheduleError as error:
    hint = {"timezone": "--tz"}.get(error.field, "EXPR")
    raise click.BadParameter(str(error), param_hint=hint) from error
  begin = start or datetime.now().astimezone()
  times = timing.preview(definition, start=begin, count=count)
  if as_json:
    show.print_json({"fire_times": times})
    return
  zone = ZoneInfo(timezone)
  for time in times:
    click.echo(time.astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %Z"))
  if not times:
    click.echo("never", err=True)
