"""One command up: the parts of a Baton server, their order, their addresses and their keys."""
