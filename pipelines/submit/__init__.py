"""The same job on a Ray cluster or in Kubernetes.

run         submit, status, logs, stop
ship        what travels with a job
job_env     variables that no file holds
manifest    a RayJob or RayCronJob
"""
