"""SFT, reward model and PPO."""

from importlib.metadata import version

__version__ = version("headwater-align")
