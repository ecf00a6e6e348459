"""What several tests share, and where things are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests/support"
GOLDEN = ROOT / "tests/golden"
CONFIGS = ROOT / "configs"
DIGITS = CONFIGS / "demo/label"
