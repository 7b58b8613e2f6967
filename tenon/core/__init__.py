"""The nouns of the engine. Import no torch, no numpy at module level unless a type needs it."""
