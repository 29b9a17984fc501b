"""Answers files of prompts with pagesift on the machines of a Ray cluster (docs/scale.md)."""
