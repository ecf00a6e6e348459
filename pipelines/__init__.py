"""Recipes and the command. They import `levit_batch`; never the reverse."""
