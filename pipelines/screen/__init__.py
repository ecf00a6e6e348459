"""What a person sees while a command runs, and after.

progress, training  bars and lines
console, inert      a terminal that is obeyed by nobody else's text
summary             how a run ended
rows, models        rows of an output; the published models
"""
