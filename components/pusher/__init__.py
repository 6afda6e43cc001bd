"""The Pusher: a blessed model becomes a version in a folder, all of it at once, and the champion in the registry."""
