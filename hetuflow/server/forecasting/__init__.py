"""Forecasts: what load schedules lead to, with some more of them and without some.

``entries`` reads schedules, limits and durations; ``report`` drives the simulation in
steps that hold nobody up, and says what came out.
"""

from hetuflow.server.forecasting.report import forecast

__all__ = ["forecast"]
