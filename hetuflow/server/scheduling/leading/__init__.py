"""Leading: one server at a time does what only one may do."""
