"""Ray: started here or joined, how many replicas of what size, and what is lost.

session, local      a Ray for as long as a job lasts
sizing              replicas for what the cluster has
supervise           all replicas lost at once
"""
