"""hetuflow: a distributed job scheduler on PostgreSQL, built on Trio."""

__all__ = ["__version__"]

__version__ = "0.1.0"
