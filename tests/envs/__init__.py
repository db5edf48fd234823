"""Tests of torchward.envs."""
