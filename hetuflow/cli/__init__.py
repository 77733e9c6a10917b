"""The ``hetuflow`` command: one module for each group of commands, loaded when used."""
