"""Hands: exploration and the actor."""
