"""The poses of the pack's library, written down as angles, and the tool that makes its data and thumbnails of them."""
