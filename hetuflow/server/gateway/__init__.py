"""The door for agents: WebSocket sessions beside the HTTP API, on one port."""
