"""Bodies of requests and responses as msgspec structs: validation and JSON in one place."""
