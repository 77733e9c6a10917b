"""What operators do with the database itself, with or without a running server.

The database is found by the settings of the server: its URL, or the private PostgreSQL of
its data folder, which is joined where it runs and started for the moment where it does not.
"""
