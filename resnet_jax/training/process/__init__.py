"""The processes of a run: start, signals, hangs, use of time and profiles."""
