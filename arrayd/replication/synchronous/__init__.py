"""Synchronous pairs (figure 24): a host's write is answered when both arrays have it."""
