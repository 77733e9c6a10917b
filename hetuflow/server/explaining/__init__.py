"""Why a task is not running, or why it ran as it did.

What is known is read by ``storage.explain``; the judgement is pure: facts in, reasons out.
"""

from hetuflow.server.explaining.explain import explain_task

__all__ = ["explain_task"]
