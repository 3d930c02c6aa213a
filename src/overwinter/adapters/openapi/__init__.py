"""Services that are described by OpenAPI or Swagger documents."""

from overwinter.adapters.openapi.apis import Apis, Identify, load_apis

__all__ = ["Apis", "Identify", "load_apis"]
