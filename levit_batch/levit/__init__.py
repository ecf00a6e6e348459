"""levit"""
