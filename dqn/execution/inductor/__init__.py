"""Compiling for the CPU with torch's own compiler; optional: without it a run goes on eagerly."""
