"""This home as an MCP server: programs for clients that speak the Model Context Protocol, both of its generations on one URL."""

from overwinter.faces.mcp.door import McpDoor

__all__ = ["McpDoor"]
