"""The HTTP server: OpenAI-compatible endpoints over one engine client.

Reading order: run (process life) -> app (routes) -> endpoint (auth, body, supervision) -> chat or
completions -> stream (engine outputs to deltas) -> call (events on the wire).
"""
