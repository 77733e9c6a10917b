"""The server: plans work, hands it to agents, records what became of it."""
