"""Fuzzing: whatever reads bytes from outside is fed damaged ones, and must refuse them properly.

A file `fuzz/targets/<name>.py` is a target. It has

    EXPECTED    the exceptions that an input may raise; any other is a finding
    seeds()     inputs to begin with, well-formed and hostile: name -> bytes
    run(data)   read one input
    DICTIONARY  words of its language, for mutations to insert (may be left out)
    SLOW_IS_FINE  True where something else bounds the time (may be left out)
    SECONDS     processor time that an input may take, if it is not one second

Inputs are kept in `fuzz/corpus/<name>/`; tests/fuzz/ replays them. See docs/fuzzing.md.
"""
