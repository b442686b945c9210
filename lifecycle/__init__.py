"""The pure core: where a lead may go, what the agreement says of it, and which deadline comes next.

Nothing here reads a clock, a file, the network or the environment; time is always an argument.
"""
