"""Measurements of fl-sim against others. Imports everything, and nothing imports it."""
