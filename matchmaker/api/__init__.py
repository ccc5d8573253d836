"""The REST API: FastAPI over the ticket store; documented by its own OpenAPI."""
