"""The use cases: each brings plan and store together."""
