"""What an output may be: grammars, the tokens they allow next, and when a model that thinks begins to answer.

Knows token ids and bytes, but no engine and no tensors. `guide` is where it comes together.
"""
