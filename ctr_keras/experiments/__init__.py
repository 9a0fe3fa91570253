"""Runnable definitions: the quickstart, and the papers' tables and figures."""
