"""Exported models at work: a filter for the command line and a page for people."""
