"""Services that are described by OpenAPI or Swagger documents."""

from overwinter.adapters.openapi.apis import Apis, load_apis

__all__ = ["Apis", "load_apis"]
