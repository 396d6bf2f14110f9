"""WHAT it shows: tables, pictures, and the state of this machine."""
