"""From bytes to one commit: unpack, decode, queue, write."""
