"""The recipe that measures each stage on this machine.

run         what limits, and what what is pending will take
measure     the stages and the models
peak        what the hardware reaches at the best
gpu         where replicas are on GPUs: what bounds the machine
"""
