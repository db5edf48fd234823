"""Modules with parameters: spaces, features, encoders, heads, and the policies that they make up."""
