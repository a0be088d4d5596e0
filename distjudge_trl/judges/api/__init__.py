"""Judges behind an OpenAI-compatible server: chat completions whose label distribution is read off one position."""
