"""Users of a run as a service: over HTTP for programs, over MCP for agents."""
