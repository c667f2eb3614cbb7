//! Downloads: mirrors, retries, hashes.
