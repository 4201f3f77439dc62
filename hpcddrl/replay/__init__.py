"""Replay: transitions kept for a while, each frame once, and drawn by priority. NumPy alone, and no communication."""
