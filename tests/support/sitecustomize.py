"""Python imports this module at start-up from any folder on PYTHONPATH."""

import os

import deadly_image

deadly_image.register()
if "DEADLY_WRITE" in os.environ:
    import deadly_write

    deadly_write.register()
if "DEADLY_START" in os.environ:
    import deadly_start

    deadly_start.register()
if "PRETEND_GPU" in os.environ:
    import pretend_gpu

    pretend_gpu.register()
