//! The sandbox that maintainer scripts and builds run in.
