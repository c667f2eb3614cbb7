//! Local files of the project.
