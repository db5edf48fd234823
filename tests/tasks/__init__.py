"""Tests of tasks, presets and advice."""
