"""Whether Atari games can be played here."""

from __future__ import annotations


def roms() -> tuple[int, str]:
    """Return how many games ale-py has, and why they cannot be played ("" if they can)."""
    try:
        from ale_py import roms as found

        return len(found.get_all_rom_ids()), "" if found.get_rom_path("pong") else "it has no ROM of Pong"
    except Exception as error:  # ale-py asks for files, libraries and other versions of packages
        return 0, f"{error}".splitlines()[0]
