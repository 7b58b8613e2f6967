"""Anthropic's Messages API: its requests to turns (`request`), and what is said to its events (`answer`)."""
