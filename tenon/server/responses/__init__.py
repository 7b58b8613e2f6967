"""OpenAI's Responses API.

Input items to turns (`items`, `request`), what is said to events (`answer`), responses that are kept
(`store`) and those that nobody waits for (`background`).
"""
