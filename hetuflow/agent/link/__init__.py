"""The way to the server: where it is, the one session with it, and its signs of life."""
