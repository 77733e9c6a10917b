"""``/schedules/what-if``."""

from functools import partial

import trio
from quart import Response

from hetuflow.protocol import wire
from hetuflow.protocol.model import Forecast, WhatIf
from hetuflow.server.api.exchange import JSON, read_body
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.server.forecasting import forecast

__all__ = ["what_if"]


@operation(Forecast, body=WhatIf)
async def what_if() -> Response:
  """Foresee the load of all schedules, with some more of them and without some.

  Nothing is stored. Tasks begin with none under way, and always find an agent.
  """
  wish = await read_body(WhatIf, optional=True)
  found = await forecast(services().database, wish)
  # Thousands of hours take some time to write.
  body = await trio.to_thread.run_sync(partial(wire.encode, found))
  return Response(body, content_type=JSON)
