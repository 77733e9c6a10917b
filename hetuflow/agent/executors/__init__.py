"""How a task runs: one module for each kind of executor."""
