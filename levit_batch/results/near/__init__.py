"""What the stored embeddings tell, without an image or a model: what is like what.

vectors    the embeddings of a table, block after block
search     the rows nearest to one vector, by an exact scan
review     copies, outliers, suspected labels and a map, as a table beside the output:
           spill (what is read), neighbours (kept when done), hashes, suspects, plane
looked_up  rows of that table, to be looked at
choose     what to label next: uncertain, and spread
"""
