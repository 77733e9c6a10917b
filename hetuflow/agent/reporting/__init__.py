"""What the server has still to learn, until it says that it knows."""
