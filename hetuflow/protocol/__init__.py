"""Words and wire: the types that cross a boundary. Pure data: no I/O, no clock."""
