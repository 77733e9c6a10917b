"""The HTTP API: one module per resource on one application."""

from hetuflow.server.api.app import create_app
from hetuflow.server.api.services import ApiServices, GatewayView

__all__ = ["ApiServices", "GatewayView", "create_app"]
