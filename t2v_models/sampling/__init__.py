"""Sampling: free functions that cite their paper."""
