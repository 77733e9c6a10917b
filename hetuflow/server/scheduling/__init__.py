"""From schedules to claims: what a server does by itself."""
