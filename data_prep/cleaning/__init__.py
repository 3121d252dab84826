"""Cleaning of training text, step by step, with an account of every line."""
