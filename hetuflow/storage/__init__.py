"""PostgreSQL: the only room that knows the database and its drivers."""
