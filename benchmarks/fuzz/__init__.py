"""Hostile requests over loopback: whatever comes in, the server answers typed, lives, and keeps its memory flat."""
