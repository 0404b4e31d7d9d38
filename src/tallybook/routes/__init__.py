"""Thin HTTP: each route reads a request, asks one room of the house, and answers."""
