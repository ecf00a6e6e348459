"""The recipe that measures each stage on this machine.

run         what limits, and what the whole plan will take
measure     the measurements
"""
