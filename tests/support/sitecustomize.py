"""Python imports this module at start-up from any folder on PYTHONPATH."""

import deadly_image

deadly_image.register()
