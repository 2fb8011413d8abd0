"""Exports: a trained policy as files that other programs run, and the proof that they say what the network says."""
