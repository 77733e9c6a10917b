"""The application: resources, and what is true of every request."""

from quart_trio import QuartTrio

from hetuflow.server.api import (
  agent_tokens,
  agents,
  api_keys,
  calendars,
  gateway,
  jobs,
  namespaces,
  openapi,
  schedules,
  servers,
  system,
  task_instances,
  tasks,
)
from hetuflow.server.api.auth import install_auth
from hetuflow.server.api.cors import install_cors
from hetuflow.server.api.exchange import ROOT
from hetuflow.server.api.problems import install_problems
from hetuflow.server.api.services import EXTENSION, ApiServices
from hetuflow.server.api.tracing import install_tracing

__all__ = ["create_app"]

_RESOURCES = (
  namespaces.blueprint,
  jobs.blueprint,
  schedules.blueprint,
  calendars.blueprint,
  tasks.blueprint,
  task_instances.blueprint,
  agents.blueprint,
  agent_tokens.blueprint,
  api_keys.blueprint,
  servers.blueprint,
  gateway.blueprint,
  system.blueprint,
)


def create_app(services: ApiServices) -> QuartTrio:
  """Make the application that serves the API and the agents' WebSocket.

  Args:
    services: the rest of the server.
  """
  app = QuartTrio("hetuflow.server.api", static_folder=None)
  app.extensions[EXTENSION] = services
  app.config["MAX_CONTENT_LENGTH"] = services.max_body_size
  app.url_map.strict_slashes = False
  install_tracing(app)
  install_auth(app)
  install_cors(app)
  install_problems(app)
  for blueprint in _RESOURCES:
    app.register_blueprint(blueprint, url_prefix=f"{ROOT}/{blueprint.name}")
  app.register_blueprint(openapi.blueprint)
  app.add_websocket("/ws", view_func=services.gateway.serve_websocket, endpoint="ws")
  return app
