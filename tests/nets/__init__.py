"""Tests of torchward.nets."""
