def write_pages(prepared, metrics):
    pass
