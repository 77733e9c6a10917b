"""Calendars: sets of dates, and what their days mean to a schedule.

``definition`` reads a calendar and answers for it, with ``holidays`` for the public ones;
``ics`` (with ``recurrence``) turns an iCalendar file into dates once; ``opening`` combines
the calendars of one schedule; ``dated`` puts them around cron, ``series`` around single
times and intervals.
"""

from hetuflow.schedule.calendar.definition import Calendar
from hetuflow.schedule.calendar.ics import import_definition, import_ics
from hetuflow.schedule.calendar.opening import CalendarUse

__all__ = ["Calendar", "CalendarUse", "import_definition", "import_ics"]
