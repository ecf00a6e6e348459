"""The same job on a Ray cluster, in Kubernetes, or on Slurm's nodes.

run         submit, wait, logs, stop
jobs        those of a cluster, by name
report      what status says of them
ship        what travels with a job
job_env     variables that no file holds
token       the one that a head asks for
manifest    a RayJob or RayCronJob
slurm       a script for sbatch
"""
