"""Durable workflows: they read like the requirements, and nothing in them touches the outside."""
