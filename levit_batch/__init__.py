"""levit-batch: a LeViT label and an embedding for every image of a large dataset."""
