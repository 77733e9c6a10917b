"""The agent: runs what is due on its machine, and reports until it is acknowledged.

For modules named by ``--import``: ``function`` registers what jobs with the executor
python may call, ``TaskContext`` is what such a function may ask for.
"""

from hetuflow.agent.functions import TaskContext, function

__all__ = ["TaskContext", "function"]
