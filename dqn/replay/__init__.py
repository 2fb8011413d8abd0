"""Memory: the ring that keeps the stream as it happened, and the ways to sample from it."""
