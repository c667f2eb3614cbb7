"""Takes orders over HTTP and keeps them in a database."""
