"""Work on what clients send whose time and memory nobody can foresee: chat templates, tokenisation, grammars.

    Workers (front end) ─ fork, reap ─► nursery ─ os.fork ─► worker: one job at a time, within its allowance
        └───────────── order, answer: a socket pair per worker ─────────────┘

What a job is, and how it is done, is in `work`; where it is done, in `pool`.
"""
