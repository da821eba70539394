"""Losses over tokens and their aggregation. Pure functions of torch tensors."""
