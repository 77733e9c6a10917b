"""When: database time on a steady clock, leases, and the wheel that fires on it."""
