"""The page of `unilat ui`, on the standard library's web server: no package, no outside request (LOG.md says why)."""
