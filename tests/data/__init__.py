"""Tests of torchward.data."""
