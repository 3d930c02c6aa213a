"""Services that are MCP servers."""

from overwinter.adapters.mcp_servers.services import McpServices, load_mcp

__all__ = ["McpServices", "load_mcp"]
