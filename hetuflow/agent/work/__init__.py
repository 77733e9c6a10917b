"""What is dispatched: taken in, started in its slot, found again after a restart."""
