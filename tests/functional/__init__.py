"""Estimators against hand-computed tables, identities, exact enumeration and independent oracles."""
